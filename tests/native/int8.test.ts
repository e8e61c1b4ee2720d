/**
 * Images with the UNet's linear layers in int8: near those in f32, and from several ranks as near
 * to those of one as rounding leaves them. The layers themselves are compared bit for bit beside
 * the code.
 */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { psnr } from "../../src/bench/image-measures.ts";
import { writeOutlierModel } from "../../src/bench/support/outliers.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import type { CpuDtype } from "../../src/settings/names.ts";
import { draw } from "../support/draw.ts";

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
