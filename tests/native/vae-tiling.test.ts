/**
 * Decoding in tiles: sizes, error against whole decoding, and the warning for the user.
 * That the numbers are diffusers' own is a measure of the parity test.
 */

import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { measureTiling, tilingImages } from "../../src/bench/support/tiling.ts";
import type { BasedXLError } from "../../src/errors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import type { Model } from "../../src/models/model.ts";
import { nativeModelOf } from "../../src/models/native-model.ts";
import { NativeHandle } from "../../src/native/handle.ts";
import { ModelParts } from "../../src/native/testing.ts";
import type { OpenOptions } from "../../src/pipeline/open-options.ts";
import { type ImageRequest, openSession } from "../../src/pipeline/session.ts";
import { tileLatent, tilingWarning } from "../../src/pipeline/vae-tiling.ts";
import { resources } from "../../src/resources.ts";
import { makeSchedule } from "../../src/schedule.ts";
import { tilingPsnr } from "../../src/settings/measured-errors.ts";
import { maxAbs } from "../support/compare.ts";

const golden = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
/** Tiles of 8 rows and columns of the latent: 64 pixels a side. */
const small = withSampleSize(golden, 64);
const size = { width: 128, height: 96 };

function withSampleSize(model: Model, sampleSize: number): Model {
  return { ...model, vae: { ...model.vae, sampleSize } };
}

function open(changes: Partial<OpenOptions> = {}) {
  const machine = { rankCount: 1, threadCount: 2, splitBatch: true, imageCount: 2 };
  return openSession({
    model: small,
    ...machine,
    ...size,
    guidance: false,
    vaeTiling: true,
    ...changes,
  });
}

function request(changes: Partial<ImageRequest> = {}): ImageRequest {
  const one = golden.tokenizer!.encode("a red circle");
  const two = golden.tokenizer2.encode("a red circle");
  const schedule = makeSchedule("euler", golden.scheduler, { stepCount: 2 });
  return {
    ...size,
    prompt: { ids: one.ids, ids2: two.ids, endIndex2: two.endIndex },
    negative: null,
    guidanceScale: 1,
    steps: schedule.steps,
    initNoiseSigma: schedule.initNoiseSigma,
    seeds: [3n, 4n],
    syncMode: "full_sync",
    warmupSteps: 0,
    splitBatch: true,
    vaeTiling: true,
    wantLatents: true,
    ...changes,
  };
}

async function refusal(promise: Promise<unknown>): Promise<BasedXLError> {
  return (await promise.then(
    () => new Error("nothing was refused"),
    (error) => error,
  )) as BasedXLError;
}

test.each([
  [1024, 128],
  [512, 64],
  [100, 12],
  [32, 4],
  [1, 4],
])("a sample_size of %p pixels is a tile of %p of the latent", (sampleSize, tile) => {
  expect(tileLatent(withSampleSize(golden, sampleSize))).toBe(tile);
});

test("a warning states the error of tiling, or that tiling has no effect", () => {
  expect(tilingWarning(small, 64, 64)).toBe(
    "--vae-tiling changes nothing at 64x64: one tile is 64x64.",
  );
  for (const [width, height] of [
    [64, 96],
    [96, 64],
  ] as const) {
    expect(tilingWarning(small, width, height)).toBe(
      "Decoding in tiles of 64x64, which is not quite the whole decode: with the bundled model " +
        "the two differ by 36 to 44 dB PSNR (bun run bench tiling measures it).",
    );
  }
});

test("what is stated is what the bundled model shows", async () => {
  const mini = await openModelFolder(resources.bundledModel());
  for (const image of tilingImages) {
    const { psnr } = await measureTiling(mini, { ...image, side: 384, stepCount: 25 });
    expect(psnr).toBeGreaterThan(tilingPsnr.min);
    expect(psnr).toBeLessThan(tilingPsnr.max);
  }
}, 60_000);

describe("images in tiles", () => {
  test("are the decoded parts of their latents, in a batch and in any order of sizes", async () => {
    const session = await open();
    const parts = await ModelParts.open(nativeModelOf(small));
    try {
      for (const changes of [{}, { width: 96, height: 160, seeds: [5n] }, {}]) {
        const result = await session.image(request({ ...changes, wantDecoded: true }));
        const [count, channels, rows, columns] = result.latentShape;
        for (let i = 0; i < count; i++) {
          const values = channels * rows * columns;
          const latent = result.latents!.subarray(i * values, (i + 1) * values);
          const scale = Math.fround(1 / Math.fround(small.vae.scalingFactor));
          const scaled = latent.map((value) => value * scale);
          const alone = await parts.decode(scaled, rows, columns, tileLatent(small));
          expect(alone.rgb).toEqual(result.images[i]!);
          const length = result.image!.length / count;
          expect(result.image!.subarray(i * length, (i + 1) * length)).toEqual(alone.image);
          const whole = await parts.decode(scaled, rows, columns);
          expect(maxAbs(whole.image, alone.image)).toBeGreaterThan(0.01);
        }
      }
    } finally {
      await parts.close();
      await session.close();
    }
  });

  test("are the whole decode where one tile holds them", async () => {
    const session = await open();
    try {
      const fits = { width: 64, height: 32 };
      const tiles = await session.image(request(fits));
      const whole = await session.image(request({ ...fits, vaeTiling: false }));
      expect(tiles.images).toEqual(whole.images);
    } finally {
      await session.close();
    }
  });

  test("are one rank's work: several are refused before they load", async () => {
    const refused = await refusal(open({ rankCount: 2 }));
    expect(refused.message).toBe(
      "2 ranks cannot decode in tiles of 8: one rank can, in multiples of 4.",
    );
  });

  test("can be stopped between tiles", async () => {
    // Some 4000 tiles: minutes of work.
    const session = await open({ model: withSampleSize(golden, 32), imageCount: 1 });
    try {
      const stop = new AbortController();
      const many = { width: 1536, height: 1536, seeds: [1n], steps: request().steps.slice(0, 1) };
      let stoppedAt = 0;
      const onProgress = ({ stage }: { stage: string }) => {
        if (stage !== "decode" || stop.signal.aborted) return;
        stoppedAt = performance.now();
        stop.abort();
      };
      const pending = session.image(request(many), { onProgress, signal: stop.signal });
      expect((await refusal(pending)).code).toBe("cancelled");
      expect(performance.now() - stoppedAt).toBeLessThan(1000);
    } finally {
      await session.close();
    }
  }, 60_000);

  test("take a tile's memory, not the image's", async () => {
    const planned = async (vaeTileLatent: number) => {
      const handle = await NativeHandle.open(
        {
          model: nativeModelOf(golden),
          rankCount: 1,
          threadCount: 1,
          gpu: null,
          branchCount: 1,
          latentRows: 128,
          latentWidth: 128,
          splitBatch: false,
          imageCount: 1,
          vaeTileLatent,
        },
        {},
      );
      const { scratchBytes } = handle.progress();
      await handle.close();
      return Number(scratchBytes);
    };
    expect(await planned(32)).toBeLessThan((await planned(0)) / 6);
  });
});
