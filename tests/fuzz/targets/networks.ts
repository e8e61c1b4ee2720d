/**
 * What is used beside a model, by names and shapes of tensors, or by a folder's configuration.
 */
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { goldenModel } from "../../../src/bench/support/golden-model.ts";
import { writeSparseFile } from "../../../src/bench/support/single-file.ts";
import { embeddingFile } from "../../../src/embeddings/file.ts";
import { openModelFolder } from "../../../src/models/folder.ts";
import { readSafetensorsHeader } from "../../../src/models/safetensors-header.ts";
import { openTaesd } from "../../../src/models/taesd.ts";
import { openVae } from "../../../src/models/vae-choice.ts";
import { openClipVision } from "../../../src/networks/clip-vision.ts";
import { openControlNetFile } from "../../../src/networks/controlnet.ts";
import { openControl } from "../../../src/networks/identify.ts";
import { openIpAdapter } from "../../../src/networks/ip-adapter.ts";
import { openT2iAdapterFile } from "../../../src/networks/t2i-adapter.ts";
import { openUpscaler } from "../../../src/networks/upscaler.ts";
import taesd from "../../fixtures/taesd.json";
import { headerOf } from "../../support/adapter-headers.ts";
import { type ControlKind, controlConfig, controlShapes } from "../../support/control-networks.ts";
import { adapterShapes, encoderConfig, encoderShapes } from "../../support/ip-adapter-files.ts";
import { upscalers } from "../../support/upscaler-files.ts";
import { mutateJson } from "../mutate.ts";
import type { Random } from "../random.ts";
import { mutateShapes, type Shapes } from "../shapes.ts";
import { target } from "../target.ts";

const model = await openModelFolder(goldenModel);
const folder = mkdtempSync(join(tmpdir(), "basedxl-fuzz-"));

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
