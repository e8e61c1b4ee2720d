/**
 * Writes the wide fixture's model folder: configs and tokenizers copied, weights from an integer
 * hash. tests/reference/formula_weights.py, which made the recorded outputs, has the same formula:
 * change both or neither; the checksums in weights.json detect a difference.
 */

import { cpSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { headOf } from "./safetensors.ts";

export type StoredType = "F32" | "F16" | "BF16";

/** One safetensors file of the folder, as weights.json lists it; `shapes` in the file's order. */
export interface WeightsFile {
  path: string;
  dtype: StoredType;
  sha256: string;
  shapes: Record<string, number[]>;
}

interface WeightsList {
  tokenizers: string;
  files: WeightsFile[];
}

const wide = join(import.meta.dir, "../../../tests/fixtures/wide");

export function readWeightsList(): WeightsList {
  return JSON.parse(readFileSync(join(wide, "weights.json"), "utf8")) as WeightsList;
}

/** Writes the whole diffusers folder into a new temporary one (29 MB) and returns its path. */
export function writeWideModel(): string {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-wide-"));
  const list = readWeightsList();
  cpSync(join(wide, "model"), folder, { recursive: true });
  for (const name of ["tokenizer", "tokenizer_2"]) {
    cpSync(join(wide, list.tokenizers, name), join(folder, name), { recursive: true });
  }
  for (const file of list.files) writeFileSync(join(folder, file.path), weightsFileBytes(file));
  writeShardIndexes(folder, list.files);
  return folder;
}

/** The bytes of one safetensors file of formula weights; the component is the path's folder. */
export function weightsFileBytes(file: Omit<WeightsFile, "sha256">): Uint8Array {
  const component = dirname(file.path);
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  const blobs: Uint8Array[] = [];
  let offset = 0;
  for (const [name, shape] of Object.entries(file.shapes)) {
    const blob = storedBytes(formulaTensor(component, name, shape), file.dtype);
    header[name] = { dtype: file.dtype, shape, data_offsets: [offset, offset + blob.length] };
    blobs.push(blob);
    offset += blob.length;
  }
  return Buffer.concat([headOf(header, 8), ...blobs]);
}

/** The f32 weight `name`: matrices preserve variance, norm weights are near 1, biases near 0. */
export function formulaTensor(component: string, name: string, shape: number[]): Float32Array {
  const count = shape.reduce((product, size) => product * size, 1);
  const values = uniform(seedOf(`${component}/${name}`), count);
  if (shape.length > 1) {
    const fanIn = count / shape[0]!;
    const amplitude = Math.fround(name.endsWith("_embedding.weight") ? 0.25 : Math.sqrt(3 / fanIn));
    return values.map((u) => u * amplitude);
  }
  return values.map(name.endsWith(".weight") ? (u) => 1 + u * 0.25 : (u) => u * 0.125);
}

/** FNV-1a, 32 bits, of the UTF-8 bytes. */
export function seedOf(text: string): number {
  let value = 0x811c9dc5;
  for (const byte of Buffer.from(text)) value = Math.imul(value ^ byte, 0x01000193);
  return value >>> 0;
}

/** Numbers in [-1, 1), multiples of 2^-23: murmur3's finalizer over seed + i * golden ratio. */
export function uniform(seed: number, count: number): Float32Array {
  const values = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    let h = Math.imul(i, 0x9e3779b9) + seed;
    h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
    h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
    h ^= h >>> 16;
    values[i] = (h >>> 8) * 2 ** -23 - 1;
  }
  return values;
}

/** The bytes of a tensor in a file, each value rounded as PyTorch does. */
export function storedBytes(values: Float32Array, dtype: StoredType): Uint8Array {
  switch (dtype) {
    case "F32":
      return new Uint8Array(values.buffer);
    case "F16":
      return new Uint8Array(Float16Array.from(values).buffer);
    case "BF16": {
      const bits = new Uint32Array(values.buffer);
      // Round to nearest, ties to even, as PyTorch does.
      const halves = Uint16Array.from(bits, (word) => (word + 0x7fff + ((word >>> 16) & 1)) >>> 16);
      return new Uint8Array(halves.buffer);
    }
  }
}

// --- internal ---

function writeShardIndexes(folder: string, files: WeightsFile[]): void {
  for (const component of new Set(files.map((file) => dirname(file.path)))) {
    const shards = files.filter((file) => dirname(file.path) === component);
    if (shards.length === 1) continue;
    const weightMap: Record<string, string> = {};
    for (const shard of shards) {
      for (const name of Object.keys(shard.shapes)) {
        weightMap[name] = shard.path.slice(component.length + 1);
      }
    }
    const stem = shards[0]!.path.replace(/-\d+-of-\d+\.safetensors$/, ".safetensors");
    const index = JSON.stringify({ metadata: {}, weight_map: weightMap });
    writeFileSync(join(folder, `${stem}.index.json`), index);
  }
}
