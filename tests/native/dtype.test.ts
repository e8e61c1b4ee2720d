/**
 * The figures about bf16 in the help, compared with generated images; images whose convolutions
 * have fewer multiplications against exact ones.
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
  "the error of bf16 images against f32 is the one in the help",
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
    // The help states whole decibels.
    expect(Math.round(Math.min(...distances))).toBeGreaterThanOrEqual(bf16Psnr.min);
    expect(Math.round(Math.max(...distances))).toBeLessThanOrEqual(bf16Psnr.max);
  },
  120_000,
);

test("convolutions with fewer multiplications change few pixels, by one level", async () => {
  const model = await openModelFolder(join(import.meta.dir, "../../src/assets/mini-sdxl"));
  const { prompt, guidanceScale } = model.defaults;
  const { width, height } = model.nativeSize;
  const work = { model, width, height, prompt, stepCount: 4, guidanceScale, negative: null };
  const exact = await draw(work);
  const fast = await draw({ ...work, winograd: true });
  const changes = fast.images[0]!.map((value, i) => Math.abs(value - exact.images[0]![i]!));
  expect(Math.max(...changes)).toBeLessThanOrEqual(1);
  expect(changes.reduce((sum, change) => sum + change, 0)).toBeLessThan(changes.length / 1000);
  expect(fast.latents).not.toEqual(exact.latents);
}, 120_000);
