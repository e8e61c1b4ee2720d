/**
 * Writes the weights of a diffusers folder as one checkpoint file in the original layout, for tests
 * and benches: the opposite of what src/models/single-file.ts reads.
 */

import { closeSync, ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import type { Model } from "../../models/model.ts";
import {
  clipModuleNames,
  type ModuleName,
  openClipModuleNames,
  unetModuleNames,
  vaeModuleNames,
} from "../../models/names.ts";
import { readSafetensorsHeader } from "../../models/safetensors-header.ts";
import { headOf } from "./safetensors.ts";

interface WriteOptions {
  /** Of all tensors; by default as the folder has them. F32 is exact for F16. */
  dtype?: "F32";
  /** Whether only the header is written: the file is sparse, and its weights are zeros. */
  isSparse?: boolean;
  /** Empty tensors beside the weights, such as the marks of a prediction type. */
  marks?: readonly string[];
  /** Of the header, beside the format. */
  metadata?: Record<string, string>;
}

/** Writes the weights of `model`, a folder's, to `path`. */
export function writeSingleFile(model: Model, path: string, options: WriteOptions = {}): void {
  const tensors = tensorsOf(model);
  const file = openSync(path, "w");
  try {
    const size = writeHeader(file, tensors, options);
    if (options.isSparse) ftruncateSync(file, size);
    else for (const tensor of tensors) writeTensor(file, tensor, options);
  } finally {
    closeSync(file);
  }
}

/** Writes a header with a hole behind it: a file of that size that takes no space. */
export function writeSparseFile(
  path: string,
  shapes: ReadonlyMap<string, readonly number[]>,
): void {
  const file = openSync(path, "w");
  const tensors = [...shapes].map(([name, shape]) => ({ name, shape, dtype: "F16" }));
  try {
    ftruncateSync(file, writeHeader(file, tensors, {}));
  } finally {
    closeSync(file);
  }
}

// --- internal ---

interface Source {
  path: string;
  dtype: string;
  shape: readonly number[];
  begin: number;
  end: number;
}

interface Target {
  name: string;
  dtype: string;
  shape: readonly number[];
  /** Stand one after the other. */
  sources: Source[];
  isTransposed: boolean;
}

function tensorsOf(model: Model): Target[] {
  const { clip, clip2, unet, vae, weights } = model;
  const second = "conditioner.embedders.1.model.";
  return [
    ...targets(weights.unet.files, "model.diffusion_model.", unetModuleNames(unet)),
    ...targets(
      weights.textEncoder.files,
      "conditioner.embedders.0.transformer.",
      clip ? clipModuleNames(clip) : [],
    ),
    ...targets(weights.textEncoder2.files, second, openClipModuleNames(clip2)),
    ...targets(weights.vae.files, "first_stage_model.", vaeModuleNames(vae)),
  ];
}

function targets(files: string[], prefix: string, modules: readonly ModuleName[]): Target[] {
  const sources = new Map<string, Source>();
  for (const path of files) {
    for (const [key, tensor] of readSafetensorsHeader(path).tensors) {
      const isBare = /^(embeddings|encoder\.layers|final_layer_norm)\./.test(key);
      sources.set(isBare ? `text_model.${key}` : key, { path, ...tensor });
    }
  }
  const found = new Map<string, Target>();
  for (const { diffusers, original, joint = ".", transposed = false } of modules) {
    // Beside weights there may be scales of 8-bit numbers.
    for (const end of ["weight", "bias", ...(joint === "." ? scaleEnds : [])]) {
      const source = sources.get(`${diffusers}.${end}`);
      if (source === undefined) continue;
      const name = prefix + (joint === null ? original : `${original}${joint}${end}`);
      const { dtype, shape } = source;
      const known = found.get(name);
      if (known === undefined) {
        const own = transposed ? shape.toReversed() : shape;
        found.set(name, { name, dtype, shape: own, sources: [source], isTransposed: transposed });
      } else {
        known.sources.push(source);
        known.shape = [known.shape[0]! + shape[0]!, ...known.shape.slice(1)];
      }
    }
  }
  return [...found.values()];
}

const scaleEnds = ["scale_weight", "weight_scale", "scale_input", "comfy_quant"];
const elementBytes: Record<string, number> = {
  ...{ F32: 4, F16: 2, BF16: 2, F8_E4M3: 1, F8_E5M2: 1, U8: 1 },
};

function countOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** Returns the size of the whole file. */
function writeHeader(
  file: number,
  tensors: readonly Pick<Target, "name" | "dtype" | "shape">[],
  { dtype: wanted, marks = [], metadata }: WriteOptions,
): number {
  const header: Record<string, unknown> = { __metadata__: { format: "pt", ...metadata } };
  let offset = 0;
  for (const { name, dtype: own, shape } of tensors) {
    const dtype = wanted ?? own;
    const end = offset + elementBytes[dtype]! * countOf(shape);
    header[name] = { dtype, shape, data_offsets: [offset, end] };
    offset = end;
  }
  for (const mark of marks) header[mark] = { dtype: "F32", shape: [0], data_offsets: [0, 0] };
  const head = headOf(header, 64);
  writeSync(file, head);
  return head.length + offset;
}

function writeTensor(file: number, tensor: Target, { dtype }: WriteOptions): void {
  const parts = tensor.sources.map(bytesOf);
  const bytes = Buffer.concat(parts);
  const isWider = dtype === "F32" && tensor.dtype === "F16";
  const values = isWider ? widened(bytes) : bytes;
  const size = elementBytes[dtype ?? tensor.dtype]!;
  writeSync(file, tensor.isTransposed ? transposed(values, tensor.shape, size) : values);
}

function bytesOf({ path, begin, end }: Source): Buffer {
  const file = openSync(path, "r");
  try {
    const bytes = Buffer.alloc(end - begin);
    readSync(file, bytes, 0, bytes.length, begin);
    return bytes;
  } finally {
    closeSync(file);
  }
}

function widened(bytes: Buffer): Buffer {
  const halves = new Float16Array(Uint8Array.from(bytes).buffer);
  return Buffer.from(Float32Array.from(halves).buffer);
}

/** From (columns, rows) to `shape` (rows, columns). */
function transposed(bytes: Buffer, shape: readonly number[], size: number): Buffer {
  const [rows = 1, columns = 1] = shape;
  const out = Buffer.alloc(bytes.length);
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const from = (column * rows + row) * size;
      bytes.copy(out, (row * columns + column) * size, from, from + size);
    }
  }
  return out;
}
