/**
 * Images that ControlNets steer against diffusers (tests/fixtures/controls.*, made by
 * tests/reference/make_controls.py): one, a small one, two at once, union ones with a hint and
 * with two, a T2I-Adapter; on
 * several ranks, in batches, from single files, with steps that reuse deep features.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { everyNth } from "../../src/bench/support/references.ts";
import { readSafetensors } from "../../src/bench/support/safetensors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import type { GenerateRequest } from "../../src/pipeline.ts";
import { relativeL2 } from "../support/compare.ts";
import { controlHint } from "../support/control-hint.ts";
import { type ControlKind, controlFolder, removeControls } from "../support/control-networks.ts";
import { KeptPipelines } from "../support/kept-pipelines.ts";
import { measured } from "../support/measured.ts";

setDefaultTimeout(60_000);

interface Notes {
  side: number;
  seed: number;
  stride: number;
  steps: number;
  /** The kind, scale, start and end of each, and of a union model the type of its hint. */
  uses: Record<string, [ControlKind, number, number, number, number?][]>;
  runs: { name: string; what: string; scheduler: string }[];
}

const fixtures = join(import.meta.dir, "../fixtures");
const notes: Notes = JSON.parse(readFileSync(join(fixtures, "controls.json"), "utf8"));
const tensors = readSafetensors(join(fixtures, "controls.safetensors"));
const { side, stride, steps, seed } = notes;
const model = await openModelFolder(join(fixtures, "golden/model"));
const networks: Record<ControlKind, string> = {
  plain: controlFolder("plain"),
  small: controlFolder("small"),
  union: controlFolder("union"),
  promax: controlFolder("promax"),
  adapter: controlFolder("adapter"),
};
const hints = [0, 1].map((turn) => controlHint(side, side, turn === 1));

const usual: GenerateRequest = {
  ...{ prompt: "a red circle", negativePrompt: "blurry", guidanceScale: 5 },
  ...{ width: side, height: side, stepCount: steps, seeds: [BigInt(seed)] },
  ...{ wantLatents: true, syncMode: "full_sync" },
};

function controlled(what: string): GenerateRequest {
  const uses = notes.uses[what]!;
  const types = uses.flatMap(([, , , , type]) => type ?? []);
  // Several hints of a union model are read at once.
  const named = types.length > 0 ? uses.slice(0, 1) : uses;
  return {
    controlnet: named.map(([kind]) => networks[kind]),
    controlImage: hints.slice(0, uses.length),
    controlScale: uses.map(([, scale]) => scale),
    controlStart: uses.map(([, , start]) => start),
    controlEnd: uses.map(([, , , end]) => end),
    ...(types.length > 0 && { controlType: types }),
  };
}

/** One for each number of ranks: networks change from job to job. */
const pipelines = new KeptPipelines();
afterAll(async () => {
  await pipelines.close();
  removeControls();
});

async function run(rankCount: number, request: GenerateRequest): Promise<Float32Array> {
  const pipeline = await pipelines.of(rankCount, {
    model,
    devices: { device: "cpu", rankCount },
    first: { ...usual, height: 128 },
  });
  const { latents } = await pipeline.generate({ ...usual, ...request });
  return latents!;
}

describe("equal to diffusers", () => {
  test.each(notes.runs)("$name", async ({ name, what, scheduler }) => {
    const latents = await run(1, { ...controlled(what), scheduler: scheduler as "euler" });
    const expected = tensors.get(name)!.data;
    const error = relativeL2(everyNth(latents, stride), expected);
    expect(measured(name, error, 1e-4)).toBeLessThan(1e-4);
  });
});

describe.each([2, 3, 4])("%d ranks", (rankCount) => {
  const tall = { width: 32, height: 128, stepCount: 3 };

  test.each(["two", "union", "promax_pair", "adapter"])(
    "%s, in full_sync, is that of one",
    async (what) => {
      // Branches of their own, and rows of all branches.
      for (const splitBatch of [true, false]) {
        const request = { ...controlled(what), ...tall, splitBatch };
        const one = await run(1, request);
        expect(relativeL2(await run(rankCount, request), one)).toBeLessThan(1e-5);
      }
    },
  );

  test("four at once, as many as there may be, are those of one", async () => {
    const kinds = ["plain", "small", "plain", "small"] as const;
    const request: GenerateRequest = {
      ...{ ...tall, controlnet: kinds.map((kind) => networks[kind]), controlScale: [0.5] },
      controlImage: [hints[0]!, hints[1]!, hints[1]!, hints[0]!],
    };
    const one = await run(1, request);
    expect(relativeL2(await run(rankCount, request), one)).toBeLessThan(1e-5);
  });

  test("every mode of exchange makes nearly the same", async () => {
    const request = { ...controlled("two"), ...tall, stepCount: 6, guidanceScale: 1 };
    const one = await run(1, request);
    const modes = ["corrected_async_gn", "stale_gn", "sync_gn", "separate_gn", "no_sync"] as const;
    for (const syncMode of modes) {
      const error = relativeL2(await run(rankCount, { ...request, syncMode, warmupSteps: 1 }), one);
      expect(error).toBeGreaterThan(0);
      expect(error).toBeLessThan(0.5);
    }
  });
});

test("an image of a batch is that alone", async () => {
  const request = { ...controlled("plain"), stepCount: 2 };
  const together = await run(1, { ...request, seeds: [1n, 2n], batchSize: 2 });
  const alone = await run(1, { ...request, seeds: [2n] });
  expect(relativeL2(together.slice(together.length / 2), alone)).toBeLessThan(1e-5);
});

describe("steps that reuse deep features", () => {
  test.each([1, 2])("on %d ranks take the residuals of the last full step", async (rankCount) => {
    const request = { ...controlled("two"), stepCount: 6, deepCache: "2" };
    const reused = await run(rankCount, request);
    expect(await run(rankCount, request)).toEqual(reused);
    expect(relativeL2(reused, await run(1, { ...request, deepCache: undefined }))).toBeLessThan(
      0.5,
    );
    if (rankCount === 1) return;
    expect(relativeL2(reused, await run(1, request))).toBeLessThan(1e-5);
  });
});

test("a hint steers, and at scale 0 it does not", async () => {
  const without = await run(1, {});
  expect(await run(1, { ...controlled("plain"), controlScale: [0] })).toEqual(without);
  const steered = await run(1, controlled("plain"));
  expect(relativeL2(steered, without)).toBeGreaterThan(0.01);
  expect(await run(1, { ...controlled("plain"), controlImage: [hints[1]!] })).not.toEqual(steered);
});
