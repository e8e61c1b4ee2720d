/**
 * Rounds the linear layers of a UNet's transformers to int8 as ComfyUI and stable-diffusion.cpp
 * store them (int8_tensorwise, convrot), with the groups and the steps of rounding that
 * `--dtype int8` has. Written after stable-diffusion.cpp's docs/int8_convrot.md.
 */
import type { Metadata, Tensors } from "./model-copy.ts";

/** Changes `tensors`; formats go to tensors beside the weights, or to `metadata`. */
export function roundToInt8(tensors: Tensors, metadata?: Metadata): void {
  const layers: Record<string, object> = {};
  for (const [name, { dtype, shape, bytes }] of [...tensors]) {
    const layer = name.replace(/\.weight$/, "");
    if (!name.includes(".attentions.") || shape.length !== 2 || layer === name) continue;
    if (dtype !== "F16") throw new Error(`${name} is ${dtype}`);
    const [rows, depth] = shape as [number, number];
    const numbers = Float32Array.from(new Float16Array(new Uint8Array(bytes).buffer));
    const group = [256, 64, 16].find((size) => depth % size === 0)!;
    const integers = new Int8Array(rows * depth);
    const scales = new Float32Array(rows);
    for (let row = 0; row < rows; row++) {
      const own = numbers.subarray(row * depth, (row + 1) * depth);
      rotate(own, group);
      const largest = own.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
      scales[row] = largest / 127;
      const inverse = Math.fround(127 / largest);
      own.forEach((x, k) => {
        integers[row * depth + k] = roundEven(Math.fround(x * inverse));
      });
    }
    tensors.set(name, { dtype: "I8", shape, bytes: new Uint8Array(integers.buffer) });
    const scaleShape = metadata ? [rows] : [rows, 1];
    const scaleBytes = new Uint8Array(scales.buffer);
    tensors.set(`${layer}.weight_scale`, { dtype: "F32", shape: scaleShape, bytes: scaleBytes });
    layers[layer] = { format: "int8_tensorwise", convrot: true, convrot_groupsize: group };
    if (metadata) continue;
    const text = new TextEncoder().encode(JSON.stringify(layers[layer]));
    tensors.set(`${layer}.comfy_quant`, { dtype: "U8", shape: [text.length], bytes: text });
  }
  const all = { format_version: "1.0", layers };
  if (metadata) metadata._quantization_metadata = JSON.stringify(all);
}

// --- internal ---

/** By the normalised Kronecker power of H4, in place. */
function rotate(row: Float32Array, group: number): void {
  for (let step = 1; step < group; step *= 4) {
    for (let i = 0; i < row.length; i++) {
      if (Math.floor(i / step) % 4 !== 0) continue;
      const a = row[i]!;
      const b = row[i + step]!;
      const c = row[i + 2 * step]!;
      const d = row[i + 3 * step]!;
      const half = Math.fround(0.5 * Math.fround(Math.fround(a + b) + Math.fround(c + d)));
      row[i] = half - d;
      row[i + step] = half - c;
      row[i + 2 * step] = half - b;
      row[i + 3 * step] = half - a;
    }
  }
}

/** Ties to even. */
function roundEven(x: number): number {
  const magic = 1.5 * 2 ** 23;
  return Math.fround(x + magic) - magic;
}
