/**
 * Images with the UNet's linear layers in int8: near those in f32, and from several ranks as near
 * to those of one as rounding leaves them. The layers themselves are compared bit for bit beside
 * the code.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { psnr } from "../../src/bench/image-measures.ts";
import { relativeL2 } from "../../src/bench/support/compare.ts";
import { writeOutlierModel } from "../../src/bench/support/outliers.ts";
import { writeRandomLora } from "../../src/bench/support/random-lora.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { Pipeline } from "../../src/pipeline.ts";
import type { CpuDtype } from "../../src/settings/names.ts";
import { draw } from "../support/draw.ts";
import { roundToInt8 } from "../support/int8-file.ts";
import { changeFile, type Metadata } from "../support/model-copy.ts";

const bundled = join(import.meta.dir, "../../src/assets/mini-sdxl");
const outliers = mkdtempSync(join(tmpdir(), "basedxl-int8-"));
afterAll(() => rmSync(outliers, { recursive: true }));

const stepCount = 8;

async function image(folder: string, dtype: CpuDtype, rankCount = 1): Promise<Uint8Array> {
  const model = await openModelFolder(folder);
  const { width, height } = model.nativeSize;
  const { prompt, guidanceScale } = model.defaults;
  const ranks = { rankCount, splitBatch: false, syncMode: "full_sync" } as const;
  const work = { model, width, height, prompt, guidanceScale, stepCount, dtype, ...ranks };
  return (await draw({ ...work, negative: null, seeds: [3n] })).images[0]!;
}

function distance(ours: Uint8Array, reference: Uint8Array): number {
  const size = { width: 256, height: 256 };
  return psnr({ pixels: ours, ...size }, { pixels: reference, ...size });
}

test("images in int8 are near those in f32, with outlier channels too", async () => {
  writeOutlierModel(bundled, outliers, 0.02);
  const exact = await image(bundled, "f32");
  expect(await image(outliers, "f32")).toEqual(exact);
  expect(distance(await image(bundled, "int8"), exact)).toBeGreaterThan(42);
  expect(distance(await image(outliers, "int8"), exact)).toBeGreaterThan(34);
}, 60_000);

test("four ranks in int8 make the image of one, up to flips of rounding", async () => {
  const one = await image(bundled, "int8");
  expect(distance(await image(bundled, "int8", 4), one)).toBeGreaterThan(42);
}, 60_000);

/** Latents of one job, in `dtype`, with a LoRA where there is a file. */
async function latentsOf(folder: string, dtype: CpuDtype, lora?: string): Promise<Float32Array> {
  const devices = { device: "cpu", dtype } as const;
  await using pipeline = await Pipeline.open({ model: folder, devices });
  const { latents } = await pipeline.generate({
    prompt: "a red house on the grass",
    stepCount: 4,
    seeds: [5n],
    loras: lora === undefined ? [] : [{ file: lora, scale: 0.3 }],
    wantLatents: true,
  });
  return latents!;
}

describe("files that hold int8", () => {
  const inMetadata = join(outliers, "metadata");
  const inTensors = join(outliers, "tensors");
  const unet = "unet/diffusion_pytorch_model.safetensors";
  beforeAll(() => {
    const metadata: Metadata = {};
    for (const folder of [inMetadata, inTensors]) cpSync(bundled, folder, { recursive: true });
    changeFile(join(inMetadata, unet), (tensors) => roundToInt8(tensors, metadata), metadata);
    changeFile(join(inTensors, unet), (tensors) => roundToInt8(tensors));
  }, 60_000);

  test("their integers are used as they are: the bits of rounding the numbers here", async () => {
    const expected = await latentsOf(bundled, "int8");
    expect(await latentsOf(inMetadata, "int8")).toEqual(expected);
    expect(await latentsOf(inTensors, "int8")).toEqual(expected);
  }, 60_000);

  test("they are multiplied in int8 whatever else is computed in", async () => {
    const exact = await latentsOf(bundled, "f32");
    const rounded = await latentsOf(inTensors, "f32");
    expect(rounded).not.toEqual(exact);
    expect(relativeL2(rounded, exact)).toBeLessThan(0.03);
  }, 60_000);

  test("a LoRA is added before rounding, to numbers and to integers", async () => {
    const lora = join(outliers, "lora.safetensors");
    writeRandomLora(lora, await openModelFolder(bundled), /attn\d\.to_|ff\.net/);
    const exact = await latentsOf(bundled, "f32", lora);
    expect(relativeL2(exact, await latentsOf(bundled, "f32"))).toBeGreaterThan(0.1);
    expect(relativeL2(await latentsOf(bundled, "int8", lora), exact)).toBeLessThan(0.03);
    expect(relativeL2(await latentsOf(inTensors, "int8", lora), exact)).toBeLessThan(0.04);
  }, 60_000);
});
