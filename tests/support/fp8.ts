/**
 * Weights in 8 bits, as PyTorch rounds them, and the files that hold them: plain, and scaled in
 * both of ComfyUI's notations. tests/reference/make_fp8.py makes the same numbers.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  changeFile,
  copyModel,
  type Metadata,
  type RawTensor,
  type Tensors,
} from "./model-copy.ts";

export const unetFile = "unet/diffusion_pytorch_model.safetensors";

/** The hashes of PyTorch's networks, by variant and network. */
export const { variants } = JSON.parse(
  readFileSync(join(import.meta.dir, "../fixtures/fp8.json"), "utf8"),
) as { variants: Record<string, Record<string, string>> };

/** A copy of the golden model with the variant's weights, and their hashes. */
export function copyVariant(variant: string): { folder: string; hashes: Record<string, string> } {
  const [type, scaling] = variant.split(".") as [F8, Scaling];
  const hashes: Record<string, string> = {};
  const folder = copyModel(unetFile, () => {});
  for (const network of Object.keys(variants[variant]!)) {
    const metadata: Metadata = {};
    const rewrite = (tensors: Tensors) => {
      Object.assign(metadata, quantize(tensors, type, scaling));
      hashes[network] = hashOf(tensors);
    };
    changeFile(join(folder, files[network]!), rewrite, metadata);
  }
  return { folder, hashes };
}

// --- internal ---

const files: Record<string, string> = {
  text_encoder: "text_encoder/model.safetensors",
  text_encoder_2: "text_encoder_2/model.safetensors",
  unet: unetFile,
  vae: "vae/diffusion_pytorch_model.safetensors",
};
type F8 = "e4m3" | "e5m2";

/** Without scales, with one for each linear layer's weight, or with one for each of its rows. */
type Scaling = "plain" | "tensor" | "rows";

interface Format {
  dtype: string;
  name: string;
  fractionBits: number;
  exponentMin: number;
  largest: number;
  /** The code of what is larger. */
  overflow: number;
}

const formats: Record<F8, Format> = {
  e4m3: {
    dtype: "F8_E4M3",
    name: "float8_e4m3fn",
    fractionBits: 3,
    exponentMin: -6,
    largest: 448,
    overflow: 0x7f,
  },
  e5m2: {
    dtype: "F8_E5M2",
    name: "float8_e5m2",
    fractionBits: 2,
    exponentMin: -14,
    largest: 57344,
    overflow: 0x7c,
  },
};

/**
 * Quantizes a file's tensors of F16: all of them where plain, else those of linear layers, in the
 * first notation for "e4m3" with one scale and in the second one otherwise. Returns metadata.
 */
function quantize(tensors: Tensors, type: F8, scaling: Scaling): Metadata | undefined {
  const format = formats[type];
  const isFirst = type === "e4m3" && scaling === "tensor";
  const layers: Record<string, { format: string }> = {};
  for (const [key, tensor] of [...tensors]) {
    const isLinear = tensor.shape.length === 2 && key.endsWith(".weight");
    if (tensor.dtype !== "F16" || (scaling !== "plain" && !isLinear)) continue;
    const { bytes, scales } = quantizeOne(tensor, format, scaling);
    tensors.set(key, { dtype: format.dtype, shape: tensor.shape, bytes });
    if (scales === null) continue;
    const layer = key.slice(0, -".weight".length);
    const shape = scaling === "rows" ? [tensor.shape[0]!, 1] : [];
    tensors.set(`${layer}.${isFirst ? "scale_weight" : "weight_scale"}`, floats(shape, scales));
    tensors.set(`${layer}.${isFirst ? "scale_input" : "input_scale"}`, floats([], [3]));
    layers[layer] = { format: format.name };
    if (isFirst || scaling === "rows") continue;
    const text = new TextEncoder().encode(JSON.stringify({ format: format.name }));
    tensors.set(`${layer}.comfy_quant`, { dtype: "U8", shape: [text.length], bytes: text });
  }
  if (isFirst) {
    tensors.set("scaled_fp8", { dtype: format.dtype, shape: [2], bytes: new Uint8Array(2) });
  }
  if (scaling !== "rows") return undefined;
  return { _quantization_metadata: JSON.stringify({ format_version: "1.0", layers }) };
}

/** Of the numbers in 8 bits and their scales, in the order of the keys. */
function hashOf(tensors: Tensors): string {
  const hash = createHash("sha256");
  for (const key of [...tensors.keys()].sort()) {
    const tensor = tensors.get(key)!;
    if (!tensor.dtype.startsWith("F8_") || key === "scaled_fp8") continue;
    hash.update(tensor.bytes);
    const layer = key.slice(0, -".weight".length);
    for (const suffix of ["scale_weight", "weight_scale"]) {
      const scale = tensors.get(`${layer}.${suffix}`);
      if (scale) hash.update(scale.bytes);
    }
  }
  return hash.digest("hex");
}

function floats(shape: number[], values: ArrayLike<number>): RawTensor {
  return { dtype: "F32", shape, bytes: new Uint8Array(Float32Array.from(values).buffer) };
}

function quantizeOne({ shape, bytes }: RawTensor, format: Format, scaling: Scaling) {
  const values = Float32Array.from(new Float16Array(new Uint8Array(bytes).buffer));
  const codes = new Uint8Array(values.length);
  if (scaling === "plain") {
    for (const [i, value] of values.entries()) codes[i] = encode(value, format);
    return { bytes: codes, scales: null };
  }
  const width = scaling === "rows" ? values.length / shape[0]! : values.length;
  const scales = new Float32Array(values.length / width);
  for (const [i, value] of values.entries()) {
    const row = Math.floor(i / width);
    scales[row] = Math.max(scales[row]!, Math.abs(value));
  }
  for (const row of scales.keys()) scales[row]! /= format.largest;
  for (const [i, value] of values.entries()) {
    const scaled = Math.fround(value / scales[Math.floor(i / width)]!);
    codes[i] = encode(scaled, format);
  }
  return { bytes: codes, scales };
}

const bits = new Uint32Array(1);
const float = new Float32Array(bits.buffer);

/** To nearest, ties to even. */
function encode(value: number, { fractionBits, exponentMin, largest, overflow }: Format): number {
  float[0] = value;
  const sign = (bits[0]! >>> 31) << 7;
  const exponent = Math.max(((bits[0]! >>> 23) & 0xff) - 127, exponentMin);
  const units = roundToEven(Math.abs(value) / 2 ** (exponent - fractionBits));
  if (units * 2 ** (exponent - fractionBits) > largest) return sign | overflow;
  // A leading 1 adds one to the exponent's field, and so does rounding up to a power of two.
  return sign | (((exponent - exponentMin) << fractionBits) + units);
}

function roundToEven(x: number): number {
  const below = Math.floor(x);
  const rest = x - below;
  return rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
}
