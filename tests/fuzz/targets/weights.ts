/**
 * Names and shapes in files of weights: LoRAs in every form, checkpoints in one file, and what is
 * used beside a model.
 */
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { matchAdapter } from "../../../src/adapters/file.ts";
import { goldenModel } from "../../../src/bench/support/golden-model.ts";
import { writeSparseFile } from "../../../src/bench/support/single-file.ts";
import { bundledEmbeddings, embeddingFile } from "../../../src/embeddings/file.ts";
import { openModelFolder } from "../../../src/models/folder.ts";
import { readSafetensorsHeader } from "../../../src/models/safetensors-header.ts";
import { classifyHeader } from "../../../src/models/single-file/classify.ts";
import { networksOf } from "../../../src/models/single-file/networks.ts";
import { detectPrediction } from "../../../src/models/single-file/prediction.ts";
import { unknownKeys } from "../../../src/models/single-file/weight-names.ts";
import { openSingleFile } from "../../../src/models/single-file.ts";
import { openTaesd } from "../../../src/models/taesd.ts";
import { openVae } from "../../../src/models/vae-choice.ts";
import { openClipVision } from "../../../src/networks/clip-vision.ts";
import { openControlNetFile } from "../../../src/networks/controlnet.ts";
import { openControl } from "../../../src/networks/identify.ts";
import { openIpAdapter } from "../../../src/networks/ip-adapter.ts";
import { openT2iAdapterFile } from "../../../src/networks/t2i-adapter.ts";
import { openUpscaler } from "../../../src/networks/upscaler.ts";
import taesd from "../../fixtures/taesd.json";
import { factorsFor, golden, headerOf } from "../../support/adapter-headers.ts";
import { type ControlKind, controlConfig, controlShapes } from "../../support/control-networks.ts";
import { adapterShapes, encoderConfig, encoderShapes } from "../../support/ip-adapter-files.ts";
import { checkpointTensors } from "../../support/original-headers.ts";
import { upscalers } from "../../support/upscaler-files.ts";
import { mutateJson } from "../mutate.ts";
import type { Random } from "../random.ts";
import { mutateShapes, type Shapes } from "../shapes.ts";
import { target } from "../target.ts";

const model = await openModelFolder(goldenModel);
const folder = mkdtempSync(join(tmpdir(), "basedxl-fuzz-"));

const attention = "down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q";
const dotted = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q";
const kohya = `lora_unet_${attention}`;
const loras: Shapes[] = [
  {
    ...factorsFor([64, 64], `${kohya}.lora_up.weight`, `${kohya}.lora_down.weight`),
    ...{ [`${kohya}.alpha`]: [], [`${kohya}.dora_scale`]: [64, 1] },
    ...factorsFor(
      [64, 64],
      "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight",
      "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
    ),
  },
  {
    ...factorsFor([64, 64], `unet.${dotted}.lora_B.weight`, `unet.${dotted}.lora_A.weight`),
    [`unet.${dotted}.lora_magnitude_vector`]: [64],
  },
  factorsFor(
    [64, 64],
    `base_model.model.${dotted}.lora_B.weight`,
    `base_model.model.${dotted}.lora_A.weight`,
  ),
  {
    ...factorsFor(
      [32, 4, 3, 3],
      "lora_unet_conv_in.lora_up.weight",
      "lora_unet_conv_in.lora_down.weight",
    ),
    "lora_unet_conv_in.lora_mid.weight": [2, 2, 3, 3],
  },
  {
    ...{ [`${kohya}.hada_w1_a`]: [64, 2], [`${kohya}.hada_w1_b`]: [2, 64] },
    ...{ [`${kohya}.hada_w2_a`]: [64, 2], [`${kohya}.hada_w2_b`]: [2, 64], [`${kohya}.alpha`]: [] },
  },
  { [`${kohya}.lokr_w1`]: [8, 8], [`${kohya}.lokr_w2_a`]: [8, 2], [`${kohya}.lokr_w2_b`]: [2, 8] },
  { [`${kohya}.diff`]: [64, 64], [`${kohya}.diff_b`]: [64], "bundle_emb.word.clip_l": [1, 64] },
];
const loraNames = [
  ...["t1", "t2", "lokr_w1_a", "w_norm", "b_norm", "set_weight", "lora_mid.weight", "on_input"],
  ...["lora.up.weight", "lora_A.default.weight", "oft_blocks", "hada_t1", "diff", "processor.x"],
].map((end) => `${kohya}.${end}`);
const peft = { "unet.lora_alpha": 4, "unet.alpha_pattern": { to_q: 2 }, "unet.use_rslora": true };

export const loraTarget = target(
  "loras",
  (random) => {
    const shapes = mutateShapes(random, random.pick(loras), { names: loraNames });
    const metadata = random.once(3)
      ? { lora_adapter_metadata: mutateJson(random, peft, ["unet.r", "alpha_pattern"]) }
      : undefined;
    return { shapes, metadata };
  },
  ({ shapes, metadata }) => {
    const header = headerOf(shapes, metadata);
    for (const embedding of bundledEmbeddings(header)) embedding.read(model);
    matchAdapter(header, golden);
  },
);

/** The networks of a checkpoint, each by itself: they are told apart by their keys alone. */
const checkpoint = checkpointTensors("base");
const whole = Object.fromEntries(checkpoint.map(([name, shape]) => [name, shape]));
const networks = ["conditioner.embedders.0.", "conditioner.embedders.1.", "first_stage_model."];
const parts = networks.map((prefix) =>
  Object.fromEntries(
    checkpoint
      .filter(([name]) => name.startsWith(prefix))
      // Two layers tell as much as 32.
      .filter(([name]) => !/\.(layers|resblocks)\.([2-9]|\d\d)\./.test(name))
      .map(([name, shape]) => [name, shape]),
  ),
);
const marks = [
  ...["v_pred", "ztsnr", "edm_mean", "edm_std", "edm_vpred.sigma_max", "model_ema.x", "betas"],
  ...["conditioner.embedders.0.model.token_embedding.weight", "vae.decoder.conv_in.weight"],
  ...["conditioner.embedders.1.model.text_projection.weight", "x.scale_weight", "input_blocks.99"],
];
const predictions = ["v", "v_prediction", "epsilon", "eps", "", "__proto__"];

export const singleFileTarget = target(
  "single-files",
  (random) => {
    const isWhole = random.once(5000);
    const part = random.pick(random.once(10) ? parts : parts.slice(0, 2));
    const shapes = mutateShapes(random, isWhole ? whole : part, { names: marks });
    return { isWhole, shapes, prediction: random.pick(predictions) };
  },
  async ({ isWhole, shapes, prediction }) => {
    const header = headerOf(shapes, { "modelspec.prediction_type": prediction });
    classifyHeader(header);
    detectPrediction(header);
    const found = networksOf(header, null);
    unknownKeys(
      header,
      Object.values(found).flatMap((network) => network?.names ?? []),
    );
    if (!isWhole) return;
    const path = written("single.safetensors", shapes);
    await openSingleFile(path);
  },
);

// --- What is used beside a model ---

interface Network {
  shapes: Shapes;
  /** Other names of such files. */
  names: readonly string[];
  elementsMax?: number;
  open(shapes: Shapes): unknown;
}

const file = (name: string, open: (path: string) => unknown) => (shapes: Shapes) =>
  open(written(name, shapes));
const vae = readSafetensorsHeader(
  join(goldenModel, "vae/diffusion_pytorch_model.safetensors"),
).tensors;

const opened: Network[] = [
  ...(["plain", "union"] as const).map((kind) => ({
    shapes: controlShapes(kind),
    names: ["input_hint_block.0.weight", "control_model.x", "lora_controlnet", "task_embedding"],
    open: (shapes: Shapes) => openControlNetFile(headerOf(shapes), model),
  })),
  {
    shapes: controlShapes("adapter"),
    names: ["adapter.body.0.block1.weight", "body.99.in_conv.weight", "conv_in.weight"],
    open: (shapes) => openT2iAdapterFile(headerOf(shapes), model),
  },
  ...(["plain", "plus"] as const).map((kind) => ({
    shapes: adapterShapes(kind),
    names: ["image_proj.proj.3.weight", "ip_adapter.1.to_q_lora.up.weight", "image_proj.latents"],
    open: file("ip.safetensors", (path) => openIpAdapter(path, model)),
  })),
  ...Object.values(upscalers).map((shapes) => ({
    shapes,
    names: ["body.0.rdb1.conv1x1.weight", "model.0.weight", "params_ema.conv_first.weight"],
    open: file("4x.safetensors", openUpscaler),
  })),
  {
    shapes: encoderShapes(1280),
    names: ["visual.class_embedding", "visual.proj", "vision_model.x"],
    open: file("vision.safetensors", openClipVision),
  },
  {
    shapes: taesd.shapes,
    names: ["decoder.layers.99.weight", "taesd_decoder.1.weight", "0.weight"],
    open: file("taesd.safetensors", (path) => openTaesd(path, model)),
  },
  {
    shapes: Object.fromEntries([...vae].map(([name, { shape }]) => [name, shape])),
    names: ["decoder.mid.block_1.conv1.weight", "first_stage_model.decoder.conv_in.weight"],
    open: file("vae.safetensors", (path) => openVae(path, model.vae)),
  },
  {
    shapes: { clip_l: [2, 64], clip_g: [2, 128] },
    names: ["text_encoders_0", "text_encoders_1", "emb_params", "string_to_param.*"],
    // Their numbers are read.
    elementsMax: 2 ** 12,
    open: file("word.safetensors", (path) => embeddingFile("word", path).read(model)),
  },
];

/** Configurations of folders, and what opens these. */
const folders: [json: object, open: (folder: string) => Promise<unknown>][] = [
  ...(["plain", "union", "adapter"] satisfies ControlKind[]).map(
    (kind): (typeof folders)[number] => [
      controlConfig(kind),
      (path: string) => openControl(path, model),
    ],
  ),
  [{ ...encoderConfig, vision_config: encoderConfig }, openClipVision],
];
const configNames = ["num_control_type", "vision_config", "conditioning_channels", "adapter_type"];
const configFolder = join(folder, "network");
mkdirSync(configFolder);
for (const stem of ["diffusion_pytorch_model", "model"]) {
  written(`network/${stem}.safetensors`, controlShapes("adapter"));
}

export const networkTarget = target(
  "networks",
  (random) => (random.once(3) ? configured(random) : withShapes(random)),
  async ({ which, shapes, text }) => {
    if (shapes !== undefined) return void (await opened[which]!.open(shapes));
    writeFileSync(join(configFolder, "config.json"), text!);
    await folders[which]![1](configFolder);
  },
);

// --- internal ---

interface NetworkCase {
  which: number;
  shapes?: Shapes;
  text?: string;
}

function withShapes(random: Random): NetworkCase {
  const which = random.below(opened.length);
  return { which, shapes: mutateShapes(random, opened[which]!.shapes, opened[which]!) };
}

function configured(random: Random): NetworkCase {
  const which = random.below(folders.length);
  return { which, text: mutateJson(random, folders[which]![0], configNames) };
}

function written(name: string, shapes: Shapes): string {
  const path = join(folder, name);
  writeSparseFile(path, new Map(Object.entries(shapes)));
  return path;
}
