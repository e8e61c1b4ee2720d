/**
 * Upscalers: their networks against PyTorch, tiles against the whole image, on several ranks, as a
 * part of a pipeline and between two passes.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { seedOf, uniform } from "../../src/bench/support/formula-weights.ts";
import { relativeL2From } from "../../src/bench/support/references.ts";
import { readSafetensors } from "../../src/bench/support/safetensors.ts";
import type { ErrorCode } from "../../src/errors.ts";
import type { RawImage } from "../../src/image/read.ts";
import { resized } from "../../src/image/transform.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { openUpscaler } from "../../src/networks/upscaler.ts";
import type { Progress } from "../../src/pipeline/progress.ts";
import { openSession } from "../../src/pipeline/session.ts";
import { type GenerateRequest, Pipeline } from "../../src/pipeline.ts";
import { refusal } from "../support/refusal.ts";
import {
  firstKeyOf,
  removeUpscalers,
  type UpscalerName,
  upscalers,
  writeUpscaler,
} from "../support/upscaler-files.ts";

// The cores may be busy.
setDefaultTimeout(60_000);

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const recorded = readSafetensors(join(import.meta.dir, "../fixtures/upscalers.safetensors"));
afterAll(removeUpscalers);

/** As tests/reference/make_upscalers.py has it, row by row and colours together. */
function noiseImage(width: number, height: number, name = "upscalers.image"): RawImage {
  const planes = uniform(seedOf(name), 3 * width * height);
  const pixels = new Uint8Array(planes.length);
  for (let i = 0; i < pixels.length; i++) {
    const value = planes[(i % 3) * width * height + Math.floor(i / 3)]!;
    pixels[i] = Math.min(255, Math.max(0, Math.floor(Math.fround((value + 1) * 127.5))));
  }
  return { pixels, width, height };
}

async function session(rankCount = 1) {
  return await openSession({
    ...{ model, gpu: null, rankCount, threadCount: 0, width: 64, height: 64 * rankCount },
    ...{ guidance: false, splitBatch: false, imageCount: 1 },
  });
}

test.each(Object.keys(upscalers) as UpscalerName[])("%s as PyTorch", async (name) => {
  const open = await session();
  const image = noiseImage(38, 21);
  const network = openUpscaler(writeUpscaler(name));
  const all = { image, network, tileSize: 512, wantDecoded: true };
  const { decoded, image: enlarged } = await open.upscale(all);
  expect(enlarged).toMatchObject({ width: 38 * network.scale, height: 21 * network.scale });
  // PyTorch's are from 0 to 1.
  const values = decoded!.map((value) => (value + 1) / 2);
  // Sums of up to 432 products in another order, 30 deep.
  expect(relativeL2From(recorded, name, values)).toBeLessThan(1e-4);
  expect([...enlarged.pixels.slice(0, 99)]).toEqual(
    [...values.slice(0, 99)].map((value) => Math.min(255, Math.max(0, Math.round(255 * value)))),
  );
  await open.close();
});

test("ESRGAN's own keys and those below params give the same", async () => {
  const open = await session();
  const image = noiseImage(9, 8);
  const bytesOf = async (file: string, keyOf?: (key: string) => string) => {
    const path = writeUpscaler("rrdbnet_x4", { file, ...(keyOf && { keyOf }) });
    const network = openUpscaler(path);
    return (await open.upscale({ image, network, tileSize: 256 })).image.pixels;
  };
  const plain = await bytesOf("plain.safetensors");
  expect(await bytesOf("old.safetensors", firstKeyOf(2))).toEqual(plain);
  expect(await bytesOf("params.safetensors", (key) => `params_ema.${key}`)).toEqual(plain);
  await open.close();
});

/** 2 x 2 tiles of 128 pixels. */
const tiledImage = noiseImage(180, 140, "tiles");

test.each([
  ["rrdbnet_x2", 3],
  ["compact_x4", 2],
] as const)("%s in tiles: no seam over a level, on %i ranks", async (name, rankCount) => {
  const network = openUpscaler(writeUpscaler(name));
  const image = tiledImage;
  const alone = await session();
  const whole = (await alone.upscale({ image, network, tileSize: 512 })).image.pixels;
  await alone.close();
  const open = await session(rankCount);
  const counts = new Set<number>();
  const onProgress = ({ stage, stepCount }: Progress) => {
    if (stage === "upscale") counts.add(stepCount);
  };
  const tiled = await open.upscale({ image, network, tileSize: 128 }, { onProgress });
  await open.close();
  expect(worstDifference(whole, tiled.image.pixels)).toBeLessThanOrEqual(1);
  // Those of the first rank.
  expect(Math.max(...counts)).toBe(Math.ceil(4 / rankCount));
});

function worstDifference(a: Uint8Array, b: Uint8Array): number {
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
}

describe("a pipeline", () => {
  const size = { width: 64, height: 64 } as const;
  const request: GenerateRequest = { ...size, prompt: "a house", seeds: [3n], stepCount: 2 };
  const hires = { hires: 2, hiresStrength: 0.5, warmupSteps: 2 } as const;
  const opened = (first: GenerateRequest) =>
    Pipeline.open({ model, devices: { device: "cpu" }, first });

  test("enlarges images, as often as their size needs", async () => {
    const file = writeUpscaler("rrdbnet_x2");
    await using pipeline = await opened(request);
    const image = noiseImage(20, 12);
    const once = await pipeline.upscale(image, { upscaler: file });
    expect(once).toMatchObject({ width: 40, height: 24, alpha: null });
    const { pixels, ...larger } = once;
    const twice = await pipeline.upscale({ pixels, ...larger }, { upscaler: file });
    expect(await pipeline.upscale(image, { upscaler: file, scale: 4 })).toEqual(twice);
    const odd = await pipeline.upscale(image, { upscaler: file, scale: 1.5 });
    const byHand = await resized({ pixels, ...larger }, { width: 30, height: 18 }, "stretch");
    expect(odd.pixels).toEqual(byHand.pixels);
  });

  test("has one between two passes", async () => {
    const upscaler = writeUpscaler("rrdbnet_x4", { scale: 0.9 });
    const asked = { ...request, ...hires, hiresUpscaler: upscaler };
    await using pipeline = await opened(asked);
    const stages = new Set<string>();
    const both = await pipeline.generate(asked, {
      onEvent: (event) => void (event.type === "progress" && stages.add(event.stage)),
    });
    const plain = await pipeline.generate(request);
    const [{ pixels } = { pixels: new Uint8Array() }] = plain.images;
    const large = await pipeline.upscale({ pixels, ...size }, { upscaler, scale: 2 });
    const byHand = await pipeline.generate({
      ...request,
      ...{ image: large, width: undefined, height: undefined, strength: 0.5, warmupSteps: 1 },
    });
    expect(both.images[0]!.pixels).toEqual(byHand.images[0]!.pixels);
    expect(stages.has("upscale")).toBe(true);
  });

  test("refuses what is no upscaler, and images that would be too large", async () => {
    const upscaler = writeUpscaler("rrdbnet_x4");
    await using pipeline = await opened(request);
    const image = noiseImage(8, 8);
    const refused = (name: string, code: ErrorCode, scale?: number, tileSize?: number) =>
      refusal(() => pipeline.upscale(image, { upscaler: name, scale, tileSize }), code);
    const vae = model.weights.vae.files[0]!;
    expect(await refused(vae, "bad-weights")).toContain("is a VAE");
    expect(await refused("nothing-here", "bad-model")).toContain("upscaler");
    expect(await refused(upscaler, "bad-option", 1e5)).toContain("more than");
    for (const tileSize of [64, 200.5, 5000, Number.NaN]) {
      expect(await refused(upscaler, "bad-option", 2, tileSize)).toContain("128 to 4096");
    }
  });
});
