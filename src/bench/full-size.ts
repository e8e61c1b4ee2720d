/**
 * A model of SDXL's size with random f16 weights (6.9 GB), for benches: its images are meaningless,
 * its times are not. Shapes and configs equal tests/reference/make_full_size.py; here the values
 * repeat, so that writing takes seconds. Or its headers alone, in sparse files: enough for plans,
 * and for GPUs that generate random weights.
 */

import {
  closeSync,
  cpSync,
  ftruncateSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { dirname, join, relative } from "node:path";
import { parseUnetConfig } from "../models/config.ts";
import { headOf } from "./support/safetensors.ts";
import { type Shapes, Tree, unetShapes } from "./support/unet-shapes.ts";

const small = join(import.meta.dir, "../../tests/fixtures/golden/model");

const sizes = {
  unet: {
    attention_head_dim: [5, 10, 20],
    block_out_channels: [320, 640, 1280],
    cross_attention_dim: 2048,
    addition_time_embed_dim: 256,
    projection_class_embeddings_input_dim: 2816,
    norm_num_groups: 32,
    sample_size: 128,
    transformer_layers_per_block: [1, 2, 10],
    layers_per_block: 2,
  },
  vae: {
    block_out_channels: [128, 256, 512, 512],
    layers_per_block: 2,
    norm_num_groups: 32,
    sample_size: 1024,
  },
  text_encoder: {
    hidden_size: 768,
    intermediate_size: 3072,
    num_hidden_layers: 12,
    num_attention_heads: 12,
    projection_dim: 768,
  },
  text_encoder_2: {
    hidden_size: 1280,
    intermediate_size: 5120,
    num_hidden_layers: 32,
    num_attention_heads: 20,
    projection_dim: 1280,
  },
} as const;

/** Where benches keep the model. */
export const fullSizeFolder = "bench-out/full-size";

/** The flag that names another place. */
export const fullSizeFlag = {
  type: "string",
  valueHint: "FOLDER",
  description:
    "Folder of a model of SDXL's full size; written with random weights (6.6 GB) if it does " +
    `not exist. Default: ${fullSizeFolder}.`,
} as const;

/** Writes the diffusers folder, unless it is already complete. */
export function writeFullSize(folder: string): void {
  if (isComplete(folder)) return;
  writeFolder(folder, (path, shapes) => writeWeights(path, shapes, "F16"));
}

/**
 * Writes the model of the complete folder `other` with the UNet's matrices and convolutions in
 * e4m3 (2.6 GB), unless it is already there; the other files are links.
 */
export function writeFullSizeF8(folder: string, other: string): void {
  if (isComplete(folder)) return;
  writeFolder(folder, (path, shapes) => {
    const name = relative(folder, path);
    if (dirname(name) === "unet") return writeWeights(path, shapes, "F8_E4M3");
    rmSync(path, { force: true });
    linkSync(join(other, name), path);
  });
}

/** Writes the configs and the headers of the weights, without values. */
export function writeFullSizeHeaders(folder: string): void {
  writeFolder(folder, (path, shapes) => {
    const file = createFile(path);
    try {
      ftruncateSync(file, writeHeader(file, shapes, "F16"));
    } finally {
      closeSync(file);
    }
  });
}

// --- internal ---

/** SDXL's vocabulary size; the copied tokenizers use fewer ids. */
const vocabularySize = 49408;

type Write = (path: string, shapes: Shapes) => void;
type Dtype = "F16" | "F8_E4M3";
const elementBytes: Record<Dtype, number> = { F16: 2, F8_E4M3: 1 };

function writeFolder(folder: string, write: Write): void {
  for (const name of ["tokenizer", "tokenizer_2", "scheduler"]) {
    cpSync(join(small, name), join(folder, name), { recursive: true });
  }
  for (const [component, changes] of Object.entries(sizes)) {
    const config = JSON.parse(readFileSync(join(small, component, "config.json"), "utf8"));
    // JSON from here would write its 1.0 as 1, which transformers refuses; 1.0 is the default.
    delete config.initializer_factor;
    mkdirSync(join(folder, component), { recursive: true });
    if (component.startsWith("text_encoder")) config.vocab_size = vocabularySize;
    const text = JSON.stringify({ ...config, ...changes }, null, 1);
    writeFileSync(join(folder, component, "config.json"), text);
  }
  const diffusion = "diffusion_pytorch_model.safetensors";
  const unetPath = join(folder, "unet", "config.json");
  const unet = parseUnetConfig(unetPath, JSON.parse(readFileSync(unetPath, "utf8")));
  write(join(folder, "unet", diffusion), unetShapes(unet));
  write(join(folder, "vae", diffusion), vaeShapes());
  const { text_encoder: first, text_encoder_2: second } = sizes;
  write(join(folder, "text_encoder/model.safetensors"), clipShapes(first, ""));
  const shapes = clipShapes(second, "text_model.");
  shapes.set("text_projection.weight", [second.projection_dim, second.hidden_size]);
  write(join(folder, "text_encoder_2/model.safetensors"), shapes);
  cpSync(join(small, "model_index.json"), join(folder, "model_index.json"));
}

/** The last file that `writeFolder` writes is there. */
function isComplete(folder: string): boolean {
  try {
    return readFileSync(join(folder, "model_index.json")).length > 0;
  } catch {
    return false;
  }
}

function vaeShapes(): Shapes {
  const tree = new Tree(new Map());
  const channels: readonly number[] = sizes.vae.block_out_channels;
  const deepest = channels.at(-1)!;
  const middle = (part: Tree) => {
    for (const i of [0, 1]) part.at(`mid_block.resnets.${i}`).resnet(deepest, deepest, 0);
    part.norm("mid_block.attentions.0.group_norm", deepest);
    part.at("mid_block.attentions.0").attention(deepest, deepest, true);
  };
  const encoder = tree.at("encoder");
  encoder.conv("conv_in", channels[0]!, 3);
  for (const [level, out] of channels.entries()) {
    const block = encoder.at(`down_blocks.${level}`);
    const before = channels[Math.max(0, level - 1)]!;
    for (const i of [0, 1]) block.at(`resnets.${i}`).resnet(i === 0 ? before : out, out, 0);
    if (level < 3) block.conv("downsamplers.0.conv", out, out);
  }
  middle(encoder);
  encoder.norm("conv_norm_out", deepest);
  encoder.conv("conv_out", 8, deepest);
  const decoder = tree.at("decoder");
  decoder.conv("conv_in", deepest, 4);
  middle(decoder);
  for (const [index, out] of channels.toReversed().entries()) {
    const block = decoder.at(`up_blocks.${index}`);
    const before = channels.at(-Math.max(1, index))!;
    for (const i of [0, 1, 2]) block.at(`resnets.${i}`).resnet(i === 0 ? before : out, out, 0);
    if (index < 3) block.conv("upsamplers.0.conv", out, out);
  }
  decoder.norm("conv_norm_out", channels[0]!);
  decoder.conv("conv_out", 3, channels[0]!);
  tree.conv("quant_conv", 8, 8, 1);
  tree.conv("post_quant_conv", 4, 4, 1);
  return tree.shapes;
}

interface ClipSizes {
  hidden_size: number;
  intermediate_size: number;
  num_hidden_layers: number;
}

function clipShapes(clip: ClipSizes, prefix: string): Shapes {
  const shapes: Shapes = new Map();
  const tree = new Tree(shapes, prefix);
  const width = clip.hidden_size;
  shapes.set(`${prefix}embeddings.position_embedding.weight`, [77, width]);
  shapes.set(`${prefix}embeddings.token_embedding.weight`, [vocabularySize, width]);
  for (let i = 0; i < clip.num_hidden_layers; i++) {
    const layer = tree.at(`encoder.layers.${i}`);
    layer.norm("layer_norm1", width);
    layer.norm("layer_norm2", width);
    for (const name of ["q_proj", "k_proj", "v_proj", "out_proj"]) {
      layer.linear(`self_attn.${name}`, width, width);
    }
    layer.linear("mlp.fc1", clip.intermediate_size, width);
    layer.linear("mlp.fc2", width, clip.intermediate_size);
  }
  tree.norm("final_layer_norm", width);
  return shapes;
}

const poolCount = 1 << 20;

/** Matrices that halve the variance of their input; norm weights 1, biases 0. */
function writeWeights(path: string, shapes: Shapes, dtype: Dtype): void {
  const file = createFile(path);
  try {
    writeHeader(file, shapes, dtype);
    const pool = uniformPool();
    for (const [name, shape] of shapes) {
      writeTensor(file, name, shape, pool, dtypeOf(shape, dtype));
    }
  } finally {
    closeSync(file);
  }
}

function createFile(path: string): number {
  mkdirSync(dirname(path), { recursive: true });
  return openSync(path, "w");
}

/** Vectors stay f16. */
function dtypeOf(shape: readonly number[], dtype: Dtype): Dtype {
  return shape.length === 1 ? "F16" : dtype;
}

/** Writes a safetensors header; returns the size of the whole file in bytes. */
function writeHeader(file: number, shapes: Shapes, dtype: Dtype): number {
  const header: Record<string, unknown> = {};
  let offset = 0;
  for (const [name, shape] of shapes) {
    const own = dtypeOf(shape, dtype);
    const bytes = elementBytes[own] * shape.reduce((product, size) => product * size, 1);
    header[name] = { dtype: own, shape, data_offsets: [offset, offset + bytes] };
    offset += bytes;
  }
  const head = headOf(header, 64);
  writeSync(file, head);
  return head.length + offset;
}

/** Numbers in [-1, 1): xorshift with a fixed seed. */
function uniformPool(): Float32Array {
  let state = 0x2545f491;
  return Float32Array.from({ length: poolCount }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state / 2 ** 31;
  });
}

function writeTensor(
  file: number,
  name: string,
  shape: number[],
  pool: Float32Array,
  dtype: Dtype,
): void {
  const count = shape.reduce((product, size) => product * size, 1);
  const isVector = shape.length === 1;
  const amplitude = 0.7 * Math.sqrt((3 * shape[0]!) / count);
  const constant = name.endsWith("weight") ? 1 : 0;
  const values = Float32Array.from({ length: Math.min(count, poolCount) }, (_, i) =>
    isVector ? constant : pool[i]! * amplitude,
  );
  const bytes =
    dtype === "F16"
      ? new Uint8Array(Float16Array.from(values).buffer)
      : Uint8Array.from(values, toE4m3);
  for (let done = 0; done < count; done += values.length) {
    const part = Math.min(values.length, count - done);
    writeSync(file, bytes.subarray(0, part * elementBytes[dtype]));
  }
}

/** Below e4m3's largest number, towards zero: as good as any for random numbers. */
function toE4m3(value: number): number {
  const exponent = Math.max(-6, Math.floor(Math.log2(Math.abs(value))));
  const units = Math.floor(Math.abs(value) / 2 ** (exponent - 3));
  // A leading 1 adds one to the exponent's field.
  return (value < 0 ? 0x80 : 0) | (((exponent + 6) << 3) + units);
}
