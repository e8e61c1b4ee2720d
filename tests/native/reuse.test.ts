/**
 * Steps that reuse what earlier steps computed of the UNet: deep features and outputs of
 * cross-attention. The schedules are random.
 */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { openModelFolder } from "../../src/models/folder.ts";
import type { StepReuse } from "../../src/native/abi.ts";
import { syncModes } from "../../src/settings/names.ts";
import { relativeL2 } from "../support/compare.ts";
import { draw, latentsOf, requestOf, type Work, withSession } from "../support/draw.ts";
import { sampled, seedName } from "../support/seed.ts";

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const size = { model, width: 32, height: 128, seeds: [5n, 6n] } as const;
const stepCount = 6;
// Layers and the downsampler of each level but the last, and conv_in.
const { layersPerBlock } = model.unet;
const skipCount = layersPerBlock.reduce((sum, layers) => sum + layers + 1, 0);

interface Plan {
  outerSkips: number;
  reuseThreshold: number;
  deep: readonly StepReuse["deep"][];
  /** The first step whose cross-attention is that of the step before; 0 for none. */
  gate: number;
  /** The first step without guidance, where no gate comes before. */
  guidanceEnd: number;
}

const plans = fc.record<Plan>({
  outerSkips: fc.integer({ min: 1, max: skipCount }),
  reuseThreshold: fc.double({ min: 0, max: 2, noNaN: true }),
  deep: fc.array(fc.constantFrom("full", "cached", "adaptive"), {
    minLength: stepCount,
    maxLength: stepCount,
  }),
  gate: fc.integer({ min: 0, max: stepCount - 1 }),
  guidanceEnd: fc.integer({ min: 1, max: stepCount }),
});

function workOf(plan: Plan, more: Partial<Work>): Work {
  const gate = plan.gate === 0 ? stepCount + 1 : plan.gate;
  const reuse = plan.deep.map((deep, i) => {
    const cross = i + 1 < gate ? "compute" : i + 1 === gate ? "keep" : "reuse";
    return { deep, cross } as const;
  });
  const { outerSkips, reuseThreshold } = plan;
  const guidedSteps = [0, Math.min(gate, plan.guidanceEnd)] as const;
  return { ...size, stepCount, guidedSteps, outerSkips, reuseThreshold, reuse, ...more };
}

const nothing: Plan = {
  outerSkips: 0,
  reuseThreshold: 0,
  deep: Array(stepCount).fill("full"),
  gate: 0,
  guidanceEnd: stepCount,
};

describe(`reuse, ${seedName}`, () => {
  test("steps that compute everything are exact, whatever they keep", async () => {
    for (const rankCount of [1, 4]) {
      const how = { rankCount, splitBatch: false };
      const exact: Work = { ...size, stepCount, ...how };
      await withSession(exact, async (session) => {
        const expected = latentsOf(await session.image(requestOf(exact)));
        for (const outerSkips of [0, 1, skipCount]) {
          const same = requestOf(workOf({ ...nothing, outerSkips }, how));
          const result = await session.image(same);
          expect(latentsOf(result)).toEqual(expected);
          expect(new Set(result.stepParts.map(({ deep }) => deep))).toEqual(
            new Set([outerSkips === 0 ? "compute" : "keep"]),
          );
        }
      });
    }
  });

  test("ranks in full_sync are one rank, and decide alike", async () => {
    for (const plan of sampled(plans, 5)) {
      const one = await withSession(workOf(plan, {}), (session) =>
        session.image(requestOf(workOf(plan, {}))),
      );
      expect(one.stepParts[0]!.deep).toBe("keep");
      for (const ranks of [{ rankCount: 4 }, { rankCount: 3 }, { rankCount: 8 }]) {
        const work = workOf(plan, ranks);
        await withSession(work, async (session) => {
          const several = await session.image(requestOf(work));
          const isAdaptive = plan.deep.includes("adaptive");
          // A change within rounding of the threshold may fall on either side.
          const parts = JSON.stringify(several.stepParts);
          if (isAdaptive && parts !== JSON.stringify(one.stepParts)) return;
          expect(several.stepParts).toEqual(one.stepParts);
          expect(relativeL2(latentsOf(several), latentsOf(one))).toBeLessThanOrEqual(1e-5);
        });
      }
    }
  }, 60_000);

  test.each([...syncModes])("%s: the same bits again, after another schedule", async (syncMode) => {
    const [first, second] = sampled(plans, 2);
    const how = { rankCount: 4, splitBatch: false, syncMode, extrapolateHalos: true };
    const [work, other] = [workOf(first!, how), workOf(second!, how)];
    await withSession(work, async (session) => {
      const before = await session.image(requestOf(work));
      await session.image(requestOf(other));
      const after = await session.image(requestOf(work));
      expect(latentsOf(after)).toEqual(latentsOf(before));
      expect(after.stepParts).toEqual(before.stepParts);
    });
  });

  test("a cached step reads the deep features of the last full one alone", async () => {
    const deep = ["full", "cached", "cached", "full", "cached", "full"] as const;
    const work = workOf({ ...nothing, outerSkips: 1, deep }, { rankCount: 2, splitBatch: false });
    await withSession(work, async (session) => {
      const { stepParts, ranks } = await session.image(requestOf(work));
      expect(stepParts.map((parts) => parts.deep)).toEqual(
        deep.map((each) => (each === "full" ? "keep" : "reuse")),
      );
      const exact = await session.image(requestOf({ ...work, reuse: undefined, outerSkips: 0 }));
      // Keys and values travel in full steps alone.
      const [ours, theirs] = [ranks[0]!, exact.ranks[0]!];
      expect(ours.keysValuesBytes).toBe((theirs.keysValuesBytes * 3) / stepCount);
      expect(ours.haloBytes).toBeGreaterThan((theirs.haloBytes * 3) / stepCount);
    });
  });

  test("fresh deep features are nearer to one rank for the same bytes", async () => {
    const deep = ["full", "cached", "full", "cached", "cached", "full"] as const;
    const plan = { ...nothing, outerSkips: 1, deep };
    const one = latentsOf(await draw(workOf(plan, {})));
    const ranks = { rankCount: 4, splitBatch: false, warmupSteps: 0 } as const;
    const how = { ...ranks, syncMode: "corrected_async_gn" } as const;
    const [fresh, old] = [
      await draw(workOf(plan, { ...how, freshDeep: true })),
      await draw(workOf(plan, { ...how, freshDeep: false })),
    ];
    expect(relativeL2(latentsOf(fresh), one)).toBeLessThan(relativeL2(latentsOf(old), one));
    expect(fresh.ranks[0]!.keysValuesBytes).toBe(old.ranks[0]!.keysValuesBytes);
  });

  test("nothing is taken that no step kept", async () => {
    const gated = workOf({ ...nothing, gate: 2 }, {});
    await withSession(gated, async (session) => {
      const request = requestOf(gated);
      const refused = [
        { ...request, reuse: request.reuse!.slice(1) },
        {
          ...request,
          reuse: request.reuse!.map(() => ({ deep: "full", cross: "reuse" }) as const),
        },
        {
          ...request,
          reuse: request.reuse!.map(() => ({ deep: "cached", cross: "compute" }) as const),
        },
        { ...request, outerSkips: skipCount + 1 },
        { ...request, reuseThreshold: Number.NaN },
      ];
      for (const each of refused) expect(session.image(each)).rejects.toThrow();
    });
  });
});
