/**
 * What the help says of bf16 on the CPU, held to the images it speaks of.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { psnr } from "../../src/bench/image-measures.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { probeDevice } from "../../src/native/device-info.ts";
import { bf16Psnr } from "../../src/settings/measured-errors.ts";
import { draw } from "../support/draw.ts";

const seeds = [1n, 2n, 3n, 4n];

test.skipIf(!probeDevice().hasBf16)(
  "images in bf16 are as near to those in f32 as is said",
  async () => {
    const model = await openModelFolder(join(import.meta.dir, "../../src/assets/mini-sdxl"));
    const { prompt, steps: stepCount, guidanceScale } = model.defaults;
    const { width, height } = model.nativeSize;
    const work = { model, width, height, prompt, stepCount, guidanceScale, negative: null, seeds };
    const exact = await draw(work);
    const rough = await draw({ ...work, dtype: "bf16" });
    const distances = rough.images.map((pixels, i) =>
      psnr({ pixels, width, height }, { pixels: exact.images[i]!, width, height }),
    );
    // Whole decibels are said.
    expect(Math.round(Math.min(...distances))).toBeGreaterThanOrEqual(bf16Psnr.min);
    expect(Math.round(Math.max(...distances))).toBeLessThanOrEqual(bf16Psnr.max);
  },
  120_000,
);
