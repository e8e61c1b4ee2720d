/**
 * TAESD: its images against diffusers' AutoencoderTiny, its files in all layouts, previews with it
 * on one rank and several, and what is refused.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { relativeL2From } from "../../src/bench/support/references.ts";
import { headOf, readSafetensors } from "../../src/bench/support/safetensors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import type { Model } from "../../src/models/model.ts";
import { nativeModelOf } from "../../src/models/native-model.ts";
import { openTaesd, withTaesd } from "../../src/models/taesd.ts";
import { smallestOptions } from "../../src/native/handle.ts";
import { planOf } from "../../src/native/plan.ts";
import { ModelParts } from "../../src/native/testing.ts";
import { type GenerateRequest, Pipeline, type PreviewEvent } from "../../src/pipeline.ts";
import recorded from "../fixtures/taesd.json";
import { refusal } from "../support/refusal.ts";
import { latent, removeTaesds, rows, width, writeTaesd } from "../support/taesd-files.ts";

const reference = join(import.meta.dir, "../fixtures/taesd.safetensors");
const golden = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const folder = mkdtempSync(join(tmpdir(), "basedxl-taesds-"));
const file = writeTaesd("diffusion_pytorch_model.safetensors");
afterAll(() => {
  removeTaesds();
  rmSync(folder, { recursive: true });
});

/** The same under the author's keys: diffusers' number N becomes N + 1 behind `prefix`. */
function authorsFile(prefix: string): string {
  return writeTaesd(`taesdxl_decoder${prefix}.safetensors`, (key) =>
    key.replace(/^decoder\.layers\.(\d+)/, (_, n) => `${prefix}${Number(n) + 1}`),
  );
}

async function decoded(model: Model): Promise<Float32Array> {
  const parts = await ModelParts.open(nativeModelOf(model));
  try {
    return await parts.decodePreview(latent, rows, width);
  } finally {
    await parts.close();
  }
}

describe("images", () => {
  const own = openTaesd(dirname(file), golden).then((taesd) => decoded(withTaesd(golden, taesd)));

  test("as diffusers' AutoencoderTiny", async () => {
    const image = await own;
    expect(image.length).toBe(3 * 8 * rows * 8 * width);
    // Sums of 576 products in another order, ten deep: f32 as in every parity test.
    expect(relativeL2From(readSafetensors(reference), "image", image)).toBeLessThan(1e-5);
  });

  test.each(["", "decoder.", "taesd_decoder."])(
    "keys of the author behind '%s'",
    async (prefix) => {
      const taesd = await openTaesd(authorsFile(prefix), golden);
      expect(await decoded(withTaesd(golden, taesd))).toEqual(await own);
    },
  );
});

describe("previews", () => {
  const request: GenerateRequest = {
    prompt: ["a red circle", "a blue square"],
    ...{ width: 64, height: 128, stepCount: 4, seeds: [3n, 4n], batchSize: 2, warmupSteps: 0 },
  };

  async function shown(rankCount: number, taesd?: string) {
    const devices = { device: "cpu", rankCount } as const;
    await using pipeline = await Pipeline.open({ model: golden, taesd, devices, first: request });
    const previews: PreviewEvent[] = [];
    const { images } = await pipeline.generate(request, {
      previewSteps: 1,
      // A slow reader skips some.
      onEvent: (event) => void (event.type === "preview" && previews.push(event)),
    });
    return { previews, images };
  }

  test("have the image's size, and leave the image as it is, on one rank and on four", async () => {
    for (const rankCount of [1, 4]) {
      const plain = await shown(rankCount);
      const tiny = await shown(rankCount, file);
      expect(tiny.images).toEqual(plain.images);
      expect(plain.previews[0]).toMatchObject({ width: 8, height: 16 });
      const [first, second] = tiny.previews;
      expect([first, second]).toMatchObject([{ index: 0 }, { index: 1 }]);
      expect(first).toMatchObject({ width: 64, height: 128 });
      expect(first!.pixels.length).toBe(64 * 128 * 3);
      expect(first!.pixels).not.toEqual(second!.pixels);
    }
  });
});

test("the memory plan has it where it is given, and nothing of it elsewhere", async () => {
  const model = withTaesd(golden, await openTaesd(file, golden));
  const planFor = (of: Model) => {
    const size = { latentRows: 64, latentWidth: 64 };
    return planOf({ ...smallestOptions(nativeModelOf(of), 64), ...size });
  };
  const [plain, tiny] = [planFor(golden), planFor(model)];
  const weights = Object.values(recorded.shapes).map((shape) => shape.reduce((a, b) => a * b, 1));
  const own = 4 * weights.reduce((sum, count) => sum + count, 0);
  expect(tiny.weight_bytes - plain.weight_bytes).toBe(own);
  const peaks = [plain, tiny].map(({ passes }) => passes[0]!.ranks[0]!.peaks.denoise);
  // Three images of 64 channels at the full size, in f32.
  expect(peaks[1]! - peaks[0]!).toBeGreaterThan(2 * 4 * 64 * 512 * 512);
});

describe("files", () => {
  test("are found by name in ComfyUI's folder", async () => {
    const models = join(folder, "models");
    mkdirSync(join(models, "vae_approx"), { recursive: true });
    cpSync(file, join(models, "vae_approx/tiny.safetensors"));
    await using pipeline = await Pipeline.open({
      model: golden,
      taesd: "Tiny",
      modelsDir: models,
      devices: { device: "cpu" },
      first: { prompt: "x", width: 64, height: 64 },
    });
    expect(pipeline.model.taesd?.path).toBe(join(models, "vae_approx/tiny.safetensors"));
  });

  test("that are none are refused by what they are", async () => {
    const refused = (path: string) => refusal(() => openTaesd(path, golden), "bad-weights");
    expect(await refused(golden.weights.vae.files[0]!)).toContain("is a VAE");
    const encoder = join(folder, "encoder.safetensors");
    const convolution = { dtype: "F16", shape: [64, 64, 3, 3], data_offsets: [0, 73728] };
    const header = headOf({ "1.conv.0.weight": convolution });
    writeFileSync(encoder, Buffer.concat([header, Buffer.alloc(73728)]));
    expect(await refused(encoder)).toContain("previews need taesdxl_decoder.safetensors");
    const four = { vae: { ...golden.vae, latentChannels: 16 }, vaeFactor: 8 };
    expect(await refusal(() => openTaesd(file, four), "bad-weights")).toContain(
      "latents of 4 channels",
    );
    const half = { ...golden, vaeFactor: 4 };
    expect(await refusal(() => openTaesd(file, half), "bad-weights")).toContain("makes 8 pixels");
  });
});
