/**
 * The schedules of reuse: which evaluations compute deep features and cross-attention.
 */
import { describe, expect, test } from "bun:test";
import type { Model } from "../../src/models/model.ts";
import { withReuse } from "../../src/pipeline/reuse.ts";
import { makeSchedule, type Schedule } from "../../src/schedule.ts";
import type { Scheduler } from "../../src/settings/names.ts";
import { asProperty } from "../../src/settings/values.ts";
import { fakeModel } from "../support/fake-model.ts";

const unet = { layersPerBlock: [2, 2, 2] } as unknown as Model["unet"];
const model = { ...fakeModel(), unet };
const nothing = { quality: "exact", deepCacheBranch: 0 } as const;

function scheduleOf(scheduler: Scheduler, stepCount: number): Schedule {
  return makeSchedule(scheduler, model.scheduler, { stepCount });
}

/** A letter per evaluation: full, cached or adaptive; large where cross-attention is reused. */
function lettersOf(
  settings: Partial<Parameters<typeof withReuse>[1]>,
  { scheduler = "euler" as Scheduler, stepCount = 12 } = {},
): string {
  const plan = withReuse(
    scheduleOf(scheduler, stepCount),
    { ...nothing, ...settings },
    { stepCount, model, naming: asProperty },
  );
  const list = plan.reuse?.reuse ?? [];
  return list
    .map(({ deep, cross }, i) => {
      const isGuided = plan.schedule.steps[i]!.guidanceFactor !== 0;
      expect(isGuided).toBe(cross !== "reuse");
      const letter = deep[0]!;
      if (cross === "keep") return `${letter}|`;
      return cross === "reuse" ? letter.toUpperCase() : letter;
    })
    .join("");
}

describe("which steps reuse", () => {
  test.each([
    [{}, ""],
    [{ deepCache: "1" }, ""],
    [{ deepCache: "2" }, "fcfcfcfcfcfc"],
    [{ deepCache: "2,4@0.5" }, "fcfcfcfcccfc"],
    [{ deepCache: "1,3@0.25" }, "ffffccfccfcc"],
    [{ deepCacheThreshold: 0.2 }, "aaaaaaaaaaaa"],
    [{ crossAttentionGate: 4 }, "ffff|FFFFFFFF"],
    [{ crossAttentionGate: 4, deepCache: "3" }, "fccf|CCFCCFCC"],
    [{ quality: "high" }, "fffcfcfcfcfc"],
    [{ quality: "fast", deepCache: "1" }, ""],
  ] as const)("%j", (settings, expected) => {
    expect(lettersOf(settings)).toBe(expected);
  });

  test("each evaluation of a step counts, and a gate is between steps", () => {
    const heun = { scheduler: "heun", stepCount: 4 } as const;
    expect(lettersOf({ deepCache: "2", crossAttentionGate: 2 }, heun)).toBe("fcfc|FCF");
  });

  test.each([
    [{ deepCache: "0" }, "deepCache must be"],
    [{ deepCache: "2@0.5" }, "deepCache must be"],
    [{ deepCache: "2,3" }, "deepCache must be"],
    [{ deepCache: "2,3@0.5,4@0.5" }, "deepCache must be"],
    [{ deepCache: "often" }, "deepCache must be"],
    [{ deepCache: "2", deepCacheThreshold: 1 }, "exclude each other"],
    [{ deepCache: "2", deepCacheBranch: 31 }, "deepCacheBranch must be from 0 to"],
    [{ crossAttentionGate: 12 }, "crossAttentionGate must be below the number of steps, 12"],
  ])("%j is refused", (settings, expected) => {
    expect(() => lettersOf(settings)).toThrow(expected);
  });
});
