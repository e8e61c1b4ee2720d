/**
 * Adapters of random numbers for the reference model, and the same model with them merged here, in
 * f64, so that sessions with the one and the other can be compared.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readSafetensorsHeader } from "../../src/models/safetensors-header.ts";
import type { Adapter, AdapterTarget } from "../../src/native/adapters.ts";
import { type RawTensor, rawFile, type Tensors } from "./model-copy.ts";

export const unetFile = "unet/diffusion_pytorch_model.safetensors";
export const encoderFile = "text_encoder_2/model.safetensors";
export const vaeFile = "vae/diffusion_pytorch_model.safetensors";

export const folder = mkdtempSync(join(tmpdir(), "basedxl-adapters-"));
const golden = join(import.meta.dir, "../fixtures/golden/model");

export function removeAdapters(): void {
  rmSync(folder, { recursive: true, force: true });
}

/** Keys of the reference model's UNet or second text encoder. */
export function keysOf(file: string, pattern: RegExp): string[] {
  const { tensors } = readSafetensorsHeader(join(golden, file));
  return [...tensors.keys()].filter((key) => pattern.test(key));
}

export interface RandomAdapter {
  /** With scales of 1. */
  adapter: Adapter;
  /** Adds the deltas, times `scale`, to the weights of a model's file. */
  mergeInto(file: string, tensors: Tensors, scale: number): void;
}

/** Writes a LoRA for weights of the reference model, and whole differences for vectors. */
export function randomAdapter(
  name: string,
  keys: Readonly<Record<string, readonly string[]>>,
  { rank = 4, size = 0.05, seed = 1 } = {},
): RandomAdapter {
  const random = uniform(seed);
  const tensors: Tensors = new Map();
  const targets: AdapterTarget[] = [];
  const deltas = new Map<string, Float64Array>();
  for (const [file, list] of Object.entries(keys)) {
    const header = readSafetensorsHeader(join(golden, file));
    const component = components[file]!;
    for (const key of list) {
      const [out = 1, ...inner] = header.tensors.get(key)!.shape;
      const make = (role: string, shape: number[], scale: number) => {
        const values = Float32Array.from({ length: product(shape) }, () => scale * random());
        tensors.set(`${file}/${key}.${role}`, {
          dtype: "F32",
          shape,
          bytes: new Uint8Array(values.buffer),
        });
        return values;
      };
      if (inner.length === 0) {
        const value = make("diff", [out], size);
        deltas.set(`${file}/${key}`, Float64Array.from(value));
        targets.push({
          component,
          key,
          algorithm: "difference",
          scale: 1,
          tensors: { value: `${file}/${key}.diff` },
        });
        continue;
      }
      const up = make("up", [out, rank, ...inner.slice(1).map(() => 1)], size);
      const down = make("down", [rank, ...inner], 1);
      deltas.set(`${file}/${key}`, multiplied(up, down, rank, 0.5));
      const names = { up: `${file}/${key}.up`, down: `${file}/${key}.down` };
      targets.push({ component, key, algorithm: "lora", scale: 0.5, tensors: names });
    }
  }
  const path = join(folder, `${name}.safetensors`);
  // Another file of tests may have removed it.
  mkdirSync(folder, { recursive: true });
  writeFileSync(path, rawFile(tensors));
  return {
    adapter: { path, unetScale: 1, textScale: 1, targets },
    mergeInto(file, model, scale) {
      for (const [key, tensor] of model) {
        const delta = deltas.get(`${file}/${key}`);
        if (delta) model.set(key, added(tensor, delta, scale));
      }
    },
  };
}

export function scaled(adapter: Adapter, scale: number): Adapter {
  return { ...adapter, unetScale: scale, textScale: scale };
}

// --- internal ---

const components: Record<string, AdapterTarget["component"]> = {
  [unetFile]: "unet",
  [encoderFile]: "text_encoder_2",
  [vaeFile]: "vae",
};

function product(shape: readonly number[]): number {
  return shape.reduce((all, size) => all * size, 1);
}

function multiplied(up: Float32Array, down: Float32Array, rank: number, scale: number) {
  const rows = up.length / rank;
  const columns = down.length / rank;
  const out = new Float64Array(rows * columns);
  for (let o = 0; o < rows; o++) {
    for (let r = 0; r < rank; r++) {
      const factor = scale * up[o * rank + r]!;
      for (let c = 0; c < columns; c++) out[o * columns + c]! += factor * down[r * columns + c]!;
    }
  }
  return out;
}

/** In f32, whatever the model's file has. */
function added(tensor: RawTensor, delta: Float64Array, scale: number): RawTensor {
  const { buffer } = new Uint8Array(tensor.bytes);
  const values = tensor.dtype === "F32" ? new Float32Array(buffer) : new Float16Array(buffer);
  const sum = Float32Array.from(values, (value, i) => value + scale * delta[i]!);
  return { dtype: "F32", shape: tensor.shape, bytes: new Uint8Array(sum.buffer) };
}

/** Numbers in [-1, 1): xorshift. */
function uniform(seed: number): () => number {
  let state = 0x2545f491 ^ Math.imul(seed, 0x9e3779b1);
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state / 2 ** 31;
  };
}
