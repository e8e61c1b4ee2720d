/**
 * Another VAE than the model's own: every layout of the same weights gives the same bits, and what
 * is no VAE for the model is refused by what it is.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { settingsOf } from "../../src/distributed/settings.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { openVae, withVae } from "../../src/models/vae-choice.ts";
import type { GpuOptions } from "../../src/native/handle.ts";
import { planRequest } from "../../src/pipeline/request.ts";
import { type GenerateRequest, Pipeline, preparePipeline } from "../../src/pipeline.ts";
import type { RawTensor } from "../support/model-copy.ts";
import { refusal } from "../support/refusal.ts";
import { ldmTensors, removeVaes, vaeTensors, writeVae } from "../support/vae-files.ts";

const golden = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const mini = await openModelFolder(join(import.meta.dir, "../../src/assets/mini-sdxl"));
const vaeFile = golden.weights.vae.files[0]!;
const empty = mkdtempSync(join(tmpdir(), "basedxl-no-vae-"));

afterAll(() => {
  removeVaes();
  rmSync(empty, { recursive: true });
});

const request: GenerateRequest = {
  prompt: "a red circle",
  ...{ width: 64, height: 64, stepCount: 2, seeds: [3n], guidanceScale: 1 },
};

async function generated(vae?: string) {
  const devices = { device: "cpu" } as const;
  await using pipeline = await Pipeline.open({ model: golden, vae, devices, first: request });
  const { images } = await pipeline.generate(request);
  return Buffer.from(images[0]!.pixels).toString("base64");
}

const zeros = (...shape: number[]): RawTensor => ({
  dtype: "F16",
  shape,
  bytes: new Uint8Array(2 * shape.reduce((product, size) => product * size, 1)),
});

describe("the model's own VAE", () => {
  const own = generated();

  test.each([
    ["its folder", dirname(vaeFile)],
    ["the whole model's folder", golden.path],
    ["its file", vaeFile],
  ])("from %s gives the same bits", async (_, path) => {
    expect(await generated(path)).toBe(await own);
  });

  test.each([
    ["diffusers' keys", () => vaeTensors(golden)],
    ["the original keys", () => ldmTensors(golden, "")],
    ["the keys of a checkpoint", () => ldmTensors(golden, "first_stage_model.")],
  ])("in a file with %s gives the same bits", async (name, tensors) => {
    const path = writeVae(`${name}.safetensors`, tensors());
    expect(await generated(path)).toBe(await own);
  });

  test("is found by its name in a folder of VAEs", async () => {
    const models = join(empty, "models");
    mkdirSync(join(models, "vae"), { recursive: true });
    cpSync(vaeFile, join(models, "vae/house.safetensors"));
    const { vae } = await preparePipeline({ model: golden, vae: "House", modelsDir: models });
    expect(vae?.path).toBe(join(models, "vae/house.safetensors"));
  });

  test("is not read where another one is chosen", async () => {
    const tensors = vaeTensors(golden);
    const bias = tensors.get("decoder.conv_out.bias")!;
    tensors.set("decoder.conv_out.bias", zeros(...bias.shape));
    const other = await generated(writeVae("other.safetensors", tensors));
    expect(other).not.toBe(await own);
  });
});

test("processes compare what the VAE holds, not where it is", async () => {
  const fingerprint = async (path: string) => {
    const model = withVae(golden, await openVae(path, golden.vae));
    const facts = { version: "1", model, rankCount: 1, gpu: {} as GpuOptions, seedIsRandom: true };
    return settingsOf(planRequest(request, model, 1), facts)["the model"];
  };
  const tensors = vaeTensors(golden);
  const own = await fingerprint(writeVae("one.safetensors", tensors));
  expect(await fingerprint(writeVae("two.safetensors", tensors))).toBe(own!);
  for (const tensor of tensors.values()) tensor.bytes = tensor.bytes.map((byte) => byte ^ 1);
  expect(await fingerprint(writeVae("three.safetensors", tensors))).not.toBe(own!);
});

describe("the configuration", () => {
  test("is that of the folder, or of a config.json beside diffusers' own file", async () => {
    for (const path of [dirname(vaeFile), golden.path, vaeFile]) {
      const { config, note } = await openVae(path, { ...golden.vae, scalingFactor: 9 });
      expect(config).toEqual(golden.vae);
      expect(note).toEndWith(`, scaling factor ${golden.vae.scalingFactor}.`);
    }
  });

  test("is the model's own for any other file, which is said", async () => {
    const own = { ...golden.vae, scalingFactor: 0.25 };
    const path = writeVae("alone.safetensors", ldmTensors(golden, ""));
    const { config, note } = await openVae(path, own);
    expect(config).toEqual(own);
    expect(note).toStartWith(`VAE: ${path} (original keys), scaling factor 0.25; that is the`);
  });
});

describe("what is no VAE for the model is refused", () => {
  const refused = (path: string) => refusal(() => openVae(path, golden.vae), "bad-weights");
  const file = (name: string, tensors: Record<string, RawTensor>) =>
    writeVae(`${name}.safetensors`, new Map(Object.entries(tensors)));

  test("by what it is", async () => {
    const lora = file("lora", { "lora_te1_a.lora_down.weight": zeros(1, 1) });
    expect(await refused(lora)).toBe(`${lora} is a LoRA for SDXL, not a VAE for the model.`);
    const [unet] = golden.weights.unet.files;
    expect(await refused(unet!)).toContain("the diffusion model of an SDXL folder alone");
    const tiny = file("tiny", { "decoder.layers.2.weight": zeros(64, 4, 3, 3) });
    expect(await refused(tiny)).toContain("is a TAESD (another model), not a VAE for the model.");
  });

  test("by its latent", async () => {
    const path = file("flux", {
      "encoder.conv_in.weight": zeros(32, 3, 3, 3),
      "decoder.conv_in.weight": zeros(64, 16, 3, 3),
      "decoder.mid.block_1.conv1.weight": zeros(1),
      "decoder.up.0.block.0.conv1.weight": zeros(1),
    });
    expect(await refused(path)).toBe(
      `${path} is a VAE of Stable Diffusion 3 or Flux: it decodes latents of 16 channels, but ` +
        "the model makes 4.",
    );
  });

  test("by its widths and levels", async () => {
    expect(await refused(writeVae("mini.safetensors", vaeTensors(mini)))).toMatch(
      /has a VAE of \d+ to \d+ channels, but the config has \d+ to \d+\.$/,
    );
    const shallow = { ...golden.vae, blockOutChannels: golden.vae.blockOutChannels.slice(1) };
    const sentence = await refusal(() => openVae(golden.path, shallow), "bad-weights");
    expect(sentence).toContain("makes 8 pixels of a latent, but the model counts on 4.");
  });

  test("by what it lacks", async () => {
    expect(await refusal(() => openVae(empty, golden.vae), "bad-model")).toContain(
      "has no VAE: neither config.json nor vae/config.json.",
    );
    const missing = () => preparePipeline({ model: golden, vae: join(empty, "gone") });
    expect(await refusal(missing, "bad-model")).toContain("does not exist");
    const tensors = vaeTensors(golden);
    tensors.delete("decoder.conv_out.bias");
    const path = writeVae("short.safetensors", tensors);
    expect(await refusal(() => generated(path), "bad-weights")).toContain("decoder.conv_out.bias");
  });
});
