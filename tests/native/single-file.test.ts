/**
 * Checkpoints in one file against diffusers folders of the same weights: identical bits, the same
 * memory, and refusals that name the file's own keys.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  closeSync,
  cpSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { goldenModel } from "../../src/bench/support/golden-model.ts";
import { readSafetensors, writeAsF32 } from "../../src/bench/support/safetensors.ts";
import { writeSingleFile } from "../../src/bench/support/single-file.ts";
import { BasedXLError } from "../../src/errors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import type { Model } from "../../src/models/model.ts";
import { nativeModelOf } from "../../src/models/native-model.ts";
import { openSingleFile } from "../../src/models/single-file.ts";
import { checkModel, planOf } from "../../src/native/plan.ts";
import { resources } from "../../src/resources.ts";
import { draw } from "../support/draw.ts";
import { copyModel, removeCopies } from "../support/model-copy.ts";

// Each draws several images.
setDefaultTimeout(30_000);

const folder = mkdtempSync(join(tmpdir(), "basedxl-single-"));
const config = goldenModel;
let golden: Model;

beforeAll(async () => {
  golden = await openModelFolder(goldenModel);
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
  removeCopies();
});

/** The golden model as one file. */
function singleFile(name: string, options: Parameters<typeof writeSingleFile>[2] = {}): string {
  const path = join(folder, `${name}.safetensors`);
  writeSingleFile(golden, path, options);
  return path;
}

const drawn = (model: Model, rankCount = 1, onWarning?: (sentence: string) => void) =>
  draw({ model, width: 64, height: 64, stepCount: 2, rankCount, onWarning });

/** The golden folder with all weights in F32. */
function wideFolder(): string {
  const path = join(folder, "wide");
  cpSync(goldenModel, path, { recursive: true });
  for (const { files } of Object.values(golden.weights)) {
    for (const file of files) {
      writeAsF32(file.replace(goldenModel, path), readSafetensors(file));
    }
  }
  return path;
}

/** Flips one byte of a tensor's name in the header. */
function renamed(path: string, from: string, to: string): void {
  const bytes = readFileSync(path);
  const at = bytes.indexOf(`"${from}"`);
  expect(at).toBeGreaterThan(0);
  expect(to).toHaveLength(from.length);
  bytes.write(to, at + 1);
  writeFileSync(path, bytes);
}

async function sentenceOf(work: () => Promise<unknown>): Promise<string> {
  try {
    await work();
  } catch (error) {
    return (error as Error).message;
  }
  return "nothing was refused";
}

describe("a checkpoint in one file", () => {
  test("gives the bits of a folder with the same weights, in F16", async () => {
    const model = await openSingleFile(singleFile("half"), { config });
    expect(model.warnings).toEqual([]);
    const expected = await drawn(golden);
    const found = await drawn(model);
    expect(found.latents).toEqual(expected.latents);
    expect(found.images).toEqual(expected.images);
  });

  test("and in F32, on two ranks", async () => {
    const model = await openSingleFile(singleFile("full", { dtype: "F32" }), { config });
    const expected = await drawn(await openModelFolder(wideFolder()), 2);
    const found = await drawn(model, 2);
    expect(found.latents).toEqual(expected.latents);
    expect(found.images).toEqual(expected.images);
  });

  test("counts each network's tensors once in the plan's memory", async () => {
    const path = singleFile("plan");
    const plans = [golden, await openSingleFile(path, { config })].map((model) =>
      planOf({
        model: nativeModelOf(model),
        rankCount: 1,
        threadCount: 1,
        gpu: null,
        latentRows: 8,
        latentWidth: 8,
        branchCount: 2,
        splitBatch: false,
        imageCount: 1,
        vaeTileLatent: 0,
      }),
    );
    const [ofFolder, ofFile] = plans.map(({ weight_bytes }) => weight_bytes);
    expect(ofFile).toBe(ofFolder!);
    expect(ofFile).toBeLessThan(statSync(path).size);
  });

  test("and with 8-bit weights and their scales", async () => {
    const file = "unet/diffusion_pytorch_model.safetensors";
    const small = copyModel(file, (tensors) => {
      for (const [name, tensor] of [...tensors]) {
        if (tensor.shape.length !== 2) continue;
        // The upper byte of an F16 number.
        const bytes = tensor.bytes.filter((_, index) => index % 2 === 1);
        tensors.set(name, { ...tensor, dtype: "F8_E5M2", bytes });
        const scale = new Uint8Array(Float32Array.of(1.25).buffer);
        const scaleName = name.replace(/weight$/, "scale_weight");
        tensors.set(scaleName, { dtype: "F32", shape: [], bytes: scale });
      }
    });
    const model = await openModelFolder(small);
    const path = join(folder, "small.safetensors");
    writeSingleFile(model, path, {
      marks: ["model.diffusion_model.scaled_fp8", "scaled_fp8"],
    });
    const single = await openSingleFile(path, { config });
    expect(single.warnings).toEqual([]);
    const warnings: string[] = [];
    const onWarning = (sentence: string) => void warnings.push(sentence);
    const found = await drawn(single, 1, onWarning);
    expect(found.latents).toEqual((await drawn(model)).latents);
    expect(found.latents).not.toEqual((await drawn(golden)).latents);
    expect(warnings).toEqual([]);
  });

  test("is refused where a scale belongs to no weight of a layer", async () => {
    const scale = "conditioner.embedders.1.model.text_projection.scale_weight";
    const path = singleFile("scaled", { marks: [scale] });
    expect(await sentenceOf(() => openSingleFile(path, { config }))).toBe(
      `${path} has scales of 8-bit weights that no network of the model has: ${scale}.`,
    );
  });

  test("of which a tensor is missing is refused by its own key", async () => {
    const path = singleFile("lacking");
    const key = "model.diffusion_model.middle_block.1.proj_in.weight";
    renamed(path, key, key.replace("proj_in", "proj_im"));
    expect(await sentenceOf(() => openSingleFile(path, { config }))).toBe(
      `${path} lacks a tensor of the UNet: ${key}.`,
    );
    const bias = "first_stage_model.decoder.conv_in.bias";
    const other = singleFile("biased");
    renamed(other, bias, bias.replace("bias", "biaz"));
    const model = await openSingleFile(other, { config });
    expect(await sentenceOf(() => drawn(model))).toBe(
      `tensor ${bias} is missing from ${other}. Do config.json and the weights belong together?`,
    );
  });

  test("of which a network's first tensor is missing is refused, not replaced", async () => {
    for (const [key, noun, short] of [
      [
        "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight",
        "the first text encoder",
        "text_model.embeddings.token_embedding.weight",
      ],
      [
        "conditioner.embedders.1.model.token_embedding.weight",
        "the second text encoder",
        "token_embedding.weight",
      ],
      ["first_stage_model.decoder.conv_in.weight", "the VAE", "decoder.conv_in.weight"],
    ] as const) {
      const path = singleFile("headless");
      renamed(path, key, key.replace("weight", "weighd"));
      const sentence = await sentenceOf(() => openSingleFile(path, { config }));
      expect(sentence).toStartWith(`${path} has tensors of ${noun}, but not ${short}: `);
    }
  });

  test.each([
    ["the reference model", goldenModel],
    // The groups of SDXL's norms do not divide its widths.
    ["the bundled model", resources.bundledModel()],
  ])("of other sizes than SDXL's asks for --config: %s", async (_, model) => {
    const path = join(folder, "other-sizes.safetensors");
    writeSingleFile(await openModelFolder(model), path);
    const sentence = await sentenceOf(() => openSingleFile(path));
    expect(sentence).toStartWith(path);
    expect(sentence).toMatch(/is built like SDXL but in other sizes.* with --config FOLDER\.$/);
  });

  test("is refused with the configs of a smaller model", async () => {
    const smaller = join(folder, "smaller");
    cpSync(goldenModel, smaller, { recursive: true });
    const unet = join(smaller, "unet/config.json");
    const json = JSON.parse(readFileSync(unet, "utf8"));
    const depths = json.transformer_layers_per_block;
    json.transformer_layers_per_block = [...depths.slice(0, -1), depths.at(-1) - 1];
    writeFileSync(unet, JSON.stringify(json));
    const path = singleFile("larger");
    expect(await sentenceOf(() => openSingleFile(path, { config: smaller }))).toStartWith(
      `${path} has tensors that the UNet, as --config has it, does not have: `,
    );
  });

  test("that holds more than the model is warned about, but not about what all hold", async () => {
    const path = singleFile("more", {
      marks: [
        "extra.a",
        "extra.b",
        "v_pred",
        "ztsnr",
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids",
        "conditioner.embedders.1.model.transformer.text_model.embeddings.position_ids",
        "conditioner.embedders.1.model.logit_scale",
        "model_ema.decay",
        "alphas_cumprod",
        "first_stage_model.loss.logvar",
      ],
    });
    const { warnings, scheduler } = await openSingleFile(path, { config });
    expect(warnings).toEqual([
      `${path} holds 2 tensors that no network of the model has and that are ignored: extra.a, ` +
        "extra.b.",
    ]);
    expect([scheduler.predictionType, scheduler.rescaleBetasZeroSnr]).toEqual([
      "v_prediction",
      true,
    ]);
  });

  test("keeps the zero SNR of --config where only its header names what it predicts", async () => {
    const zero = join(folder, "zero");
    cpSync(goldenModel, zero, { recursive: true });
    const scheduler = join(zero, "scheduler/scheduler_config.json");
    const json = JSON.parse(readFileSync(scheduler, "utf8"));
    const training = { prediction_type: "v_prediction", rescale_betas_zero_snr: true };
    writeFileSync(scheduler, JSON.stringify({ ...json, ...training }));
    const opened = async (prediction: string, at: string) => {
      const metadata = { "modelspec.prediction_type": prediction };
      const path = singleFile(`header-${prediction}`, { metadata });
      const { scheduler: found, warnings } = await openSingleFile(path, { config: at });
      return [found.predictionType, found.rescaleBetasZeroSnr, ...warnings];
    };
    expect(await opened("v", zero)).toEqual(["v_prediction", true]);
    expect(await opened("epsilon", config)).toEqual(["epsilon", false]);
    const said = (predicts: string, given: string) =>
      expect.stringMatching(
        new RegExp(
          `predicts ${predicts}, and the scheduler of --config ${given}: the header counts`,
        ),
      );
    const epsilon = ["epsilon", false, said("epsilon", "v_prediction")];
    expect(await opened("epsilon", zero)).toEqual(epsilon);
    const v = ["v_prediction", false, said("v_prediction", "epsilon")];
    expect(await opened("v", config)).toEqual(v);
  });

  test("that is cut short between opening and loading is named", async () => {
    const path = singleFile("cut");
    const model = await openSingleFile(path, { config });
    truncateSync(path, statSync(path).size - 100);
    expect(await sentenceOf(() => drawn(model))).toContain(`${path}: tensor first_stage_model.`);
  });

  test("without text encoders takes those of the folder of --config", async () => {
    const whole = singleFile("whole");
    const unet = join(folder, "unet-only.safetensors");
    writeSingleFile({ ...golden, clip: null, weights: onlyUnet(golden) }, unet);
    const expected = await drawn(await openSingleFile(whole, { config }));
    const found = await drawn(await openSingleFile(unet, { config }));
    expect(found.latents).toEqual(expected.latents);
    expect(await sentenceOf(() => openSingleFile(unet))).toContain("--config FOLDER");
  });
});

test("random damage to a header ends in a sentence, or in a plan", async () => {
  const path = singleFile("damaged");
  const whole = readFileSync(path);
  const headerEnd = 8 + Number(whole.readBigUInt64LE(0));
  const file = openSync(path, "r+");
  const edits = fc.array(fc.tuple(fc.nat(headerEnd - 1), fc.nat(255)), {
    minLength: 1,
    maxLength: 6,
  });
  const check = async (list: [number, number][]) => {
    for (const [at, byte] of list) writeSync(file, Buffer.of(byte), 0, 1, at);
    try {
      checkModel(nativeModelOf(await openSingleFile(path, { config })), 8);
    } catch (error) {
      if (!(error instanceof BasedXLError)) throw error;
      expect(error.message).toMatch(/^[^\p{Cc}]+[.?]$/u);
    } finally {
      for (const [at] of list) writeSync(file, whole, at, 1, at);
    }
  };
  await fc.assert(fc.asyncProperty(edits, check), { numRuns: 500 });
  closeSync(file);
}, 60_000);

function onlyUnet({ weights }: Model): Model["weights"] {
  const none = { files: [], names: null };
  return { ...weights, textEncoder: none, textEncoder2: none, vae: none };
}
