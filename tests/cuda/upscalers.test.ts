/**
 * Upscalers in f16 on an emulated GPU, in one tile and in several, against the CPU's f32.
 */
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import type { GpuOptions } from "../../src/native/handle.ts";
import { randomNormal } from "../../src/native/testing.ts";
import { openUpscaler } from "../../src/networks/upscaler.ts";
import { openSession } from "../../src/pipeline/session.ts";
import { relativeL2 } from "../support/compare.ts";
import { emulated } from "../support/emulator.ts";
import { removeUpscalers, type UpscalerName, writeUpscaler } from "../support/upscaler-files.ts";

// Emulated threads are slow, and the cores may be busy.
setDefaultTimeout(240_000);

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
afterAll(removeUpscalers);

test.each([
  ["rrdbnet_x2", 22, 18],
  ["compact_x4", 20, 16],
] as const)("%s is the CPU's within f16", async (name, width, height) => {
  const values = randomNormal(1n, 1, 3 * width * height);
  const pixels = Uint8Array.from(values, (value) => Math.min(255, Math.max(0, 128 + 60 * value)));
  const image = { pixels, width, height };
  const expected = await decodedOf(name, image, null);
  const decoded = await decodedOf(name, image, emulated());
  expect(relativeL2(decoded, expected)).toBeLessThan(1e-2);
});

async function decodedOf(
  name: UpscalerName,
  image: { pixels: Uint8Array; width: number; height: number },
  gpu: GpuOptions | null,
): Promise<Float32Array> {
  const session = await openSession({
    ...{ model, gpu, rankCount: 1, threadCount: 0, width: 64, height: 64 },
    ...{ guidance: false, splitBatch: false, imageCount: 1 },
  });
  const network = openUpscaler(writeUpscaler(name));
  const { decoded } = await session.upscale({ image, network, tileSize: 512, wantDecoded: true });
  await session.close();
  return decoded!;
}
