/**
 * An image that is split into patches of rows: equal to one rank where a mode promises it, equal to
 * DistriFusion's own recorded runs where it does not, and the same bits every time.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { writeWideModel } from "../../src/bench/support/formula-weights.ts";
import { relativeL2From } from "../../src/bench/support/references.ts";
import { readSafetensors } from "../../src/bench/support/safetensors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import type { Model } from "../../src/models/model.ts";
import { planRequest } from "../../src/pipeline/request.ts";
import type { ImageResult } from "../../src/pipeline/session.ts";
import { type SyncMode, syncModes } from "../../src/settings/names.ts";
import { maxAbs, relativeL2 } from "../support/compare.ts";
import { draw, latentsOf, requestOf, type Work, withSession } from "../support/draw.ts";
import { refusal } from "../support/refusal.ts";
import { sampled, seed, seedName } from "../support/seed.ts";

// Many images each, and the cores may be busy.
setDefaultTimeout(60_000);

const fixtures = join(import.meta.dir, "../fixtures");
const golden = await openModelFolder(join(fixtures, "golden/model"));
const wideFolder = writeWideModel();
const wide = await openModelFolder(wideFolder);

afterAll(() => rmSync(wideFolder, { recursive: true }));

/** Sums in another order, through six steps. */
const exactBar = 1e-5;

describe("DistriFusion's recorded runs, with its factor n / (n - 1) of the variance", () => {
  interface Run {
    name: string;
    prompt: string;
    negative: string;
    guidance: number;
    seed: number;
    steps: number;
    width: number;
    height: number;
    scheduler: "euler";
    warmup: number;
    world: number;
    split_batch: boolean;
    mode: SyncMode;
  }
  const folder = join(fixtures, "patch_parallel");
  const runs: Run[] = JSON.parse(readFileSync(join(folder, "patch_parallel.json"), "utf8"));
  const tensors = readSafetensors(join(folder, "patch_parallel.safetensors"));
  const distance = ({ name }: Run, part: string, ours: Float32Array) =>
    relativeL2From(tensors, `pp.${name}.${part}`, ours);
  const bar = 1e-4;

  test("are all here", () => {
    expect(runs).toHaveLength(14);
    expect(new Set(runs.map(({ mode }) => mode))).toEqual(new Set(syncModes));
  });

  test.each(runs)("$name", async (run) => {
    const work: Work = {
      model: golden,
      prompt: run.prompt,
      negative: run.negative,
      guidanceScale: run.guidance,
      seeds: [BigInt(run.seed)],
      stepCount: run.steps,
      width: run.width,
      height: run.height,
      scheduler: run.scheduler,
      warmupSteps: run.warmup,
      rankCount: run.world,
      splitBatch: run.split_batch,
      syncMode: run.mode,
      extrapolateHalos: false,
      testHooks: { besselVariance: true },
    };
    await withSession(work, async (session) => {
      const whole = await session.image(requestOf(work));
      expect(distance(run, "latents", latentsOf(whole))).toBeLessThanOrEqual(bar);
      const half = await session.image(requestOf({ ...work, stepsDone: 7 }));
      expect(distance(run, "mid", latentsOf(half))).toBeLessThanOrEqual(bar);
    });
  });
});

describe("full_sync equals one rank", () => {
  const cut = fc.record({
    rankCount: fc.integer({ min: 2, max: 16 }),
    guidance: fc.boolean(),
    // From statistics of the whole image, however rows and branches are split.
    guidanceRescale: fc.constantFrom(0, 0.7, 1),
    splitBatch: fc.boolean(),
    imageCount: fc.integer({ min: 1, max: 2 }),
    warmupSteps: fc.integer({ min: 0, max: 6 }),
    seed: fc.bigInt({ min: 0n, max: 2n ** 63n }),
    // Rows and columns in the smallest units that every level of the model can halve.
    spareRows: fc.integer({ min: 0, max: 9 }),
    columns: fc.integer({ min: 1, max: 10 }),
    missingRows: fc.integer({ min: 1, max: 15 }),
  });
  type Cut = typeof cut extends fc.Arbitrary<infer T> ? T : never;
  const models = { reference: golden, wide };
  const none = { files: [], names: null };
  const empty = { textEncoder: none, textEncoder2: none, unet: none, vae: none };

  function patchCountOf({ rankCount, guidance, splitBatch }: Cut): number {
    return guidance && splitBatch && rankCount % 2 === 0 ? rankCount / 2 : rankCount;
  }

  function workOf(model: Model, sampled: Cut, rows: number, area: number): Work {
    const { rankCount, splitBatch, imageCount, warmupSteps, seed } = sampled;
    const columns = Math.max(1, Math.min(sampled.columns, Math.floor(area / rows)));
    return {
      model,
      rankCount,
      splitBatch,
      warmupSteps,
      seeds: Array.from({ length: imageCount }, (_, i) => seed + BigInt(i)),
      guidanceScale: sampled.guidance ? 5 : 1,
      guidanceRescale: sampled.guidanceRescale,
      width: columns * model.sizeMultiple,
      height: rows * model.sizeMultiple,
      stepCount: 6,
      wantDecoded: true,
    };
  }

  // 100 units of the reference model are 320 x 320 pixels.
  const everyCount = Array.from({ length: 15 }, (_, i) => i + 2);
  test.each([
    ...everyCount.map((rankCount) => ({ name: "reference", area: 100, rankCount }) as const),
    ...sampled(cut, 4).map(({ rankCount }) => ({ name: "wide", area: 24, rankCount }) as const),
  ])(`at sizes that can be dealt, $name model, $rankCount ranks (${seedName})`, async (kind) => {
    await fc.assert(
      fc.asyncProperty(cut, async (anyCount) => {
        const sampled = { ...anyCount, rankCount: kind.rankCount };
        const rows = patchCountOf(sampled) + sampled.spareRows;
        const work = workOf(models[kind.name], sampled, rows, kind.area);
        const ours = await draw(work);
        const one = await draw({ ...work, rankCount: 1 });
        expect(ours.ranks).toHaveLength(sampled.rankCount);
        expect(relativeL2(latentsOf(ours), latentsOf(one))).toBeLessThanOrEqual(exactBar);
        // The VAE's patches are always synchronous, but what they decode has its own rounding.
        expect(relativeL2(imageOf(ours), imageOf(one))).toBeLessThanOrEqual(exactBar);
      }),
      // One case for each number of ranks, and another one with each seed.
      { numRuns: 1, seed },
    );
  });

  test("and what cannot be dealt is refused before anything loads", async () => {
    await fc.assert(
      fc.asyncProperty(
        cut.filter((sampled) => sampled.missingRows < patchCountOf(sampled)),
        async (sampled) => {
          const patchCount = patchCountOf(sampled);
          const rows = patchCount - sampled.missingRows;
          const { rankCount, guidanceScale, splitBatch, width, height } = workOf(
            golden,
            sampled,
            rows,
            100,
          );
          const request = { prompt: "", guidanceScale, splitBatch, width, height };
          // A plan needs the model's configs alone.
          const sentence = await refusal(
            () => planRequest(request, { ...golden, weights: empty }, rankCount ?? 1),
            "bad-option",
          );
          expect(sentence).toContain(`${rankCount} ranks are ${patchCount} patches`);
          expect(sentence).toContain(`a height of at least ${patchCount * golden.sizeMultiple}`);
        },
      ),
    );
  });
});

describe("the same seed gives the same bits", () => {
  const work: Work = {
    model: golden,
    width: 160,
    height: 160,
    stepCount: 4,
    warmupSteps: 1,
    scheduler: "euler_a",
  };
  const cuts = [
    { rankCount: 2, splitBatch: false },
    { rankCount: 5, splitBatch: false },
    { rankCount: 6, splitBatch: true },
  ];

  test.each(syncModes)(`whatever the ranks' timing: %s (${seedName})`, async (syncMode) => {
    for (const shared of cuts) {
      const reference = await draw({ ...work, ...shared, syncMode });
      for (const delaySeed of sampled(fc.integer({ min: 1, max: 2 ** 31 }), 2)) {
        const timing = { testHooks: { delaySeed }, threadCount: 1 + (delaySeed % 7) };
        const delayed = await draw({ ...work, ...shared, syncMode, ...timing });
        expectSame(delayed, reference, `${shared.rankCount} ranks, delays ${delaySeed}`);
      }
    }
  });

  test("in every mode on one rank", async () => {
    const small = { ...work, width: 96, height: 64 };
    const plain = await draw({ ...small, splitBatch: false });
    await withSession(small, async (session) => {
      for (const syncMode of syncModes) {
        for (const warmupSteps of [0, 3]) {
          const result = await session.image(requestOf({ ...small, syncMode, warmupSteps }));
          expectSame(result, plain, `${syncMode}, warm-up ${warmupSteps}`);
        }
      }
    });
  });

  test("after other sizes, prompts and modes in one session", async () => {
    const shared = { ...work, rankCount: 4, syncMode: "corrected_async_gn" } as const;
    const reference = await draw(shared);
    await withSession(shared, async (session) => {
      await session.image(requestOf({ ...shared, width: 64, height: 256, prompt: "x" }));
      await session.image(requestOf({ ...shared, syncMode: "no_sync", warmupSteps: 0 }));
      await session.image(requestOf({ ...shared, syncMode: "full_sync", guidanceScale: 1 }));
      expectSame(await session.image(requestOf(shared)), reference, "after others");
      const wider = requestOf({ ...shared, splitBatch: false, seeds: [1n, 2n] });
      await session.image(wider);
      expectSame(await session.image(requestOf(shared)), reference, "after a batch");
    });
  });

  function expectSame(ours: ImageResult, reference: ImageResult, what: string): void {
    expect(Buffer.compare(bytesOf(latentsOf(ours)), bytesOf(latentsOf(reference))), what).toBe(0);
    expect(Buffer.compare(ours.images[0]!, reference.images[0]!), what).toBe(0);
  }
});

describe("an image of a batch is the same alone", () => {
  const seeds = [7n, 2n ** 63n, 8n];
  // On one rank all modes are the same (above).
  const shares = [
    { rankCount: 1, syncMode: "full_sync" },
    { rankCount: 2, syncMode: "full_sync" },
    { rankCount: 2, syncMode: "corrected_async_gn" },
    { rankCount: 3, syncMode: "full_sync" },
    { rankCount: 3, syncMode: "corrected_async_gn" },
  ] as const;

  test.each(shares)("$rankCount rank(s), $syncMode", async (shared) => {
    const whole = { model: golden, stepCount: 5, warmupSteps: 1, splitBatch: false, ...shared };
    const work: Work = { ...whole, scheduler: "euler_a", width: 96, height: 192 };
    const batch = await draw({ ...work, seeds });
    expect(batch.latentShape[0]).toBe(seeds.length);
    const length = latentsOf(batch).length / seeds.length;
    for (const [i, seed] of seeds.entries()) {
      const alone = await draw({ ...work, seeds: [seed] });
      expect(latentsOf(batch).subarray(i * length, (i + 1) * length)).toEqual(latentsOf(alone));
      // The VAE decodes image by image: the same work, the same bits.
      expect(batch.images[i]).toEqual(alone.images[0]!);
    }
  });
});

describe("the VAE in patches", () => {
  /** One step from the same noise, so that little more than the decoding differs. */
  const work: Work = { model: golden, stepCount: 1, guidanceScale: 1, width: 160, height: 224 };

  const shared = { ...work, wantDecoded: true };
  let whole: Promise<ImageResult> | null = null;

  test.each([2, 3, 5, 7])("decodes as a whole: %d ranks", async (rankCount) => {
    whole ??= draw(shared);
    const one = await whole;
    const ours = await draw({ ...shared, rankCount });
    expect(relativeL2(imageOf(ours), imageOf(one))).toBeLessThanOrEqual(exactBar);
    expect(maxAbs(ours.images[0]!, one.images[0]!)).toBeLessThanOrEqual(1);
  });
});

function imageOf({ image }: ImageResult): Float32Array {
  if (image === null) throw new Error("the image came without the decoder's output");
  return image;
}

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
