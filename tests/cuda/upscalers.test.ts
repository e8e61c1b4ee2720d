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
import { type OpenWork, runOpen } from "../support/open-run.ts";
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

test("one that does not fit beside the model is refused before weights load", () => {
  const image: OpenWork = {
    ...{ width: 64, height: 64, imageCount: 1, vaeTiling: false, rankCount: 1 },
  };
  const upscaler = writeUpscaler("rrdbnet_x4");
  const enlarging = (tileSize: number): OpenWork => ({
    ...image,
    upscale: { upscaler, width: 1024, height: 1024, tileSize },
  });
  // The libraries take 64 MiB of it.
  const [alone, large] = runOpen([image, enlarging(1024)], 180);
  expect(alone).toBeNull();
  expect(large).toMatch(/^The upscaler needs .* GiB of free memory on GPU 0/);
  const advised = Number(/What fits: tiles of (\d+) pixels\./.exec(large!)?.[1]);
  expect(advised).toBeLessThan(1024);
  expect(runOpen([enlarging(advised), enlarging(2 * advised)], 180)).toEqual([
    null,
    expect.stringContaining("The upscaler needs"),
  ]);
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
