/**
 * Writes the golden model's weights (21 MB of random numbers, which the repository does not hold)
 * beside its configs in tests/fixtures/golden/model. They are PyTorch's initial values for two
 * seeds; tests/fixtures/golden/weights.json maps each tensor to numbers of the two streams and
 * lists the SHA-256 of each file. tests/reference/make_golden_model.py made that list.
 *
 * `bun test` and the benches call it; `bun run fixtures` does nothing else.
 */

import { existsSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { headOf } from "./safetensors.ts";

/** The model's folder. Its weights are there after `writeGoldenModel`. */
export const goldenModel = join(import.meta.dir, "../../../tests/fixtures/golden/model");

/**
 * Writes the missing files; takes a second the first time. Safe for concurrent processes: each file
 * appears atomically.
 */
export function writeGoldenModel(folder = goldenModel): void {
  const listPath = join(goldenModel, "..", "weights.json");
  const list = JSON.parse(readFileSync(listPath, "utf8")) as WeightsList;
  const missing = list.files.filter((file) => !isWhole(join(folder, file.path), file));
  if (missing.length === 0) return;
  const streams = list.draws.map((count, seed) => mersenneTwister(seed, count));
  for (const file of missing) {
    const bytes = fileBytes(file, streams);
    const sha256 = new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
    if (sha256 !== file.sha256) throw new Error(`${file.path} has another SHA-256 than recorded`);
    const path = join(folder, file.path);
    const newPath = `${path}.${process.pid}.tmp`;
    try {
      writeFileSync(newPath, bytes);
      renameSync(newPath, path);
    } finally {
      rmSync(newPath, { force: true });
    }
  }
}

// --- internal ---

/** Vectors also have the offset of their noise in stream 1; the other offset is in stream 0. */
type Recipe = [
  shape: number[],
  kind: "uniform" | "normal" | "constant",
  offset: number,
  factor: number,
  noise?: number,
];

interface TensorEntry {
  from: Recipe;
  /** [index, f16 bits] where PyTorch's vector logarithm or cosine is a unit off. */
  off?: [number, number][];
}

interface WeightsFile {
  path: string;
  sha256: string;
  tensors: Record<string, TensorEntry>;
}

interface WeightsList {
  /** Count of numbers used from the streams of seed 0 and seed 1. */
  draws: number[];
  files: WeightsFile[];
}

/** Scale of the noise of vectors, in f32. */
const noiseFactor = Math.fround(0.1);

function isWhole(path: string, file: WeightsFile): boolean {
  return existsSync(path) && statSync(path).size === headerOf(file).length + dataBytesOf(file);
}

function dataBytesOf(file: WeightsFile): number {
  return Object.values(file.tensors).reduce((sum, { from }) => sum + 2 * countOf(from[0]), 0);
}

function countOf(shape: number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** The file's length word and header. */
function headerOf(file: WeightsFile): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: { format: "pt" } };
  let offset = 0;
  for (const [name, { from }] of Object.entries(file.tensors)) {
    const end = offset + 2 * countOf(from[0]);
    header[name] = { dtype: "F16", shape: from[0], data_offsets: [offset, end] };
    offset = end;
  }
  return headOf(header, 8);
}

function fileBytes(file: WeightsFile, streams: Uint32Array[]): Uint8Array {
  const blobs = Object.values(file.tensors).map((entry) => {
    const values = Float16Array.from(tensorOf(entry.from, streams));
    const bits = new Uint16Array(values.buffer);
    for (const [index, value] of entry.off ?? []) bits[index] = value;
    return new Uint8Array(bits.buffer);
  });
  return Buffer.concat([headerOf(file), ...blobs]);
}

function tensorOf(recipe: Recipe, streams: Uint32Array[]): Float32Array {
  const [shape, kind, offset, factor, noise] = recipe;
  const count = countOf(shape);
  const values = new Float32Array(count);
  if (kind === "constant") values.fill(factor);
  else if (kind === "normal") fillNormal(values, streams[0]!, offset, factor);
  else fillUniform(values, streams[0]!, offset, factor);
  if (noise === undefined) return values;
  const added = new Float32Array(count);
  if (count < 16) fillFewNormal(added, streams[1]!, noise);
  else fillNormal(added, streams[1]!, noise, 1);
  return values.map((value, i) => value + Math.fround(noiseFactor * added[i]!));
}

/** torch.Tensor.uniform_(-factor, factor). */
function fillUniform(values: Float32Array, raw: Uint32Array, offset: number, factor: number): void {
  for (let i = 0; i < values.length; i++) {
    values[i] = unitOf(raw[offset + i]!) * 2 * factor - factor;
  }
}

/**
 * torch.Tensor.normal_(0, factor) of 16 numbers or more: Box-Muller, sixteen at a time, eight radii
 * and then eight angles. Where 16 does not divide the count, the last sixteen are sampled again.
 */
function fillNormal(values: Float32Array, raw: Uint32Array, offset: number, factor: number): void {
  const { length } = values;
  for (let start = 0; start + 16 <= length; start += 16) {
    fillSixteen(values, start, raw, offset + start, factor);
  }
  if (length % 16 !== 0) fillSixteen(values, length - 16, raw, offset + length, factor);
}

function fillSixteen(
  values: Float32Array,
  start: number,
  raw: Uint32Array,
  offset: number,
  factor: number,
): void {
  for (let i = 0; i < 8; i++) {
    const radius = Math.sqrt(-2 * Math.log(1 - unitOf(raw[offset + i]!)));
    const angle = 2 * Math.PI * unitOf(raw[offset + 8 + i]!);
    values[start + i] = radius * Math.cos(angle) * factor;
    values[start + 8 + i] = radius * Math.sin(angle) * factor;
  }
}

/** torch.randn of fewer than 16 numbers: pairs, each from two f64 numbers of 53 bits. */
function fillFewNormal(values: Float32Array, raw: Uint32Array, offset: number): void {
  for (let i = 0; i < values.length; i += 2) {
    const at = offset + 2 * i;
    const angle = 2 * Math.PI * unitOf53(raw[at]!, raw[at + 1]!);
    const radius = Math.sqrt(-2 * Math.log1p(-unitOf53(raw[at + 2]!, raw[at + 3]!)));
    values[i] = radius * Math.cos(angle);
    if (i + 1 < values.length) values[i + 1] = radius * Math.sin(angle);
  }
}

/** [0, 1) from a word's low 24 bits. */
function unitOf(word: number): number {
  return (word & 0xffffff) * 2 ** -24;
}

/** [0, 1) from the low 53 bits of two words, the higher first. */
function unitOf53(high: number, low: number): number {
  return ((high & 0x1fffff) * 2 ** 32 + low) * 2 ** -53;
}

/** The first `count` words of MT19937, seeded as PyTorch's CPU generator is. */
function mersenneTwister(seed: number, count: number): Uint32Array {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let i = 1; i < 624; i++) {
    const last = state[i - 1]!;
    state[i] = Math.imul(last ^ (last >>> 30), 1812433253) + i;
  }
  const words = new Uint32Array(count);
  for (let at = 0; at < count; at++) {
    const i = at % 624;
    if (i === 0) twist(state);
    let word = state[i]!;
    word ^= word >>> 11;
    word ^= (word << 7) & 0x9d2c5680;
    word ^= (word << 15) & 0xefc60000;
    words[at] = word ^ (word >>> 18);
  }
  return words;
}

function twist(state: Uint32Array): void {
  for (let i = 0; i < 624; i++) {
    const mixed = (state[i]! & 0x80000000) | (state[(i + 1) % 624]! & 0x7fffffff);
    state[i] = state[(i + 397) % 624]! ^ (mixed >>> 1) ^ (mixed & 1 ? 0x9908b0df : 0);
  }
}

if (import.meta.main) {
  const startMs = performance.now();
  writeGoldenModel();
  const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
  process.stderr.write(`tests/fixtures/golden/model is complete (${seconds} s).\n`);
}
