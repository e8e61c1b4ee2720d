/**
 * IP-Adapters of the golden model's sizes and their image encoder, with weights from the formula
 * that tests/reference/make_ip_adapter.py has too; and the images that both show to them.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { weightsFileBytes } from "../../src/bench/support/formula-weights.ts";
import type { RawImage } from "../../src/image/read.ts";
import { safetensorsBytes } from "./safetensors-bytes.ts";

export type Shapes = Record<string, number[]>;
export type AdapterKind = "plain" | "plus";

const notes = join(import.meta.dir, "../fixtures/ip-adapter.json");
export const encoderConfig: {
  hidden_size: number;
  intermediate_size: number;
  projection_dim: number;
  patch_size: number;
} = JSON.parse(readFileSync(notes, "utf8")).encoder;

/** The golden model's: channels of its cross-attentions by diffusers' order, and their context. */
const attentionChannels = [64, 64, 128, 128, 128, 128, ...Array(6).fill(128), 64, 64, 64, 128, 128];
const contextSize = 192;

export const folder = mkdtempSync(join(tmpdir(), "basedxl-ip-"));

export function removeIpAdapters(): void {
  rmSync(folder, { recursive: true, force: true });
}

/** As the hub lays them out: an adapter in `sdxl_models`, the encoder in `models/image_encoder`. */
export function writeIpAdapters(): Record<AdapterKind, string> {
  const encoder = join(folder, "models/image_encoder");
  mkdirSync(encoder, { recursive: true });
  writeFileSync(join(encoder, "config.json"), JSON.stringify(encoderConfig));
  const shapes = encoderShapes();
  writeFileSync(join(encoder, "model.safetensors"), bytesOf("image_encoder", shapes));
  const adapter = (kind: AdapterKind) =>
    write(`sdxl_models/${kind}`, bytesOf(`ip_adapter_${kind}`, adapterShapes(kind)));
  return { plain: adapter("plain"), plus: adapter("plus") };
}

/** A file of the folder with tensors of zeros; its absolute path. */
export function writeZeros(name: string, shapes: Shapes): string {
  return write(name, safetensorsBytes(shapes));
}

export function adapterShapes(kind: AdapterKind): Shapes {
  const shapes = kind === "plain" ? plainShapes() : plusShapes();
  attentionChannels.forEach((channels, i) => {
    shapes[`ip_adapter.${2 * i + 1}.to_k_ip.weight`] = [channels, contextSize];
    shapes[`ip_adapter.${2 * i + 1}.to_v_ip.weight`] = [channels, contextSize];
  });
  return shapes;
}

export function ipImage(number: number): RawImage {
  const [width, height] = number === 0 ? [50, 40] : [33, 61];
  return picture(
    { width, height },
    (x, y, c) => 5 * x + 3 * y + 70 * c + ((x * y) >> 3) + 90 * number,
  );
}

/** RGB of a formula of column, row and channel, modulo 256. */
export function picture(
  { width, height }: { width: number; height: number },
  value: (x: number, y: number, c: number) => number,
): RawImage {
  const pixels = Uint8Array.from({ length: 3 * width * height }, (_, i) => {
    const at = Math.floor(i / 3);
    return value(at % width, Math.floor(at / width), i % 3) % 256;
  });
  return { pixels, width, height };
}

/** The encoder's tensors by transformers' names. */
export function encoderShapes(hidden = 32, inner = 48, projection = 24): Shapes {
  const shapes: Shapes = {
    "vision_model.embeddings.class_embedding": [hidden],
    "vision_model.embeddings.patch_embedding.weight": [hidden, 3, 8, 8],
    "vision_model.embeddings.position_embedding.weight": [17, hidden],
    "visual_projection.weight": [projection, hidden],
  };
  const module = (name: string, shape: number[]) => {
    shapes[`vision_model.${name}.weight`] = shape;
    shapes[`vision_model.${name}.bias`] = shape.slice(0, 1);
  };
  module("pre_layrnorm", [hidden]);
  module("post_layernorm", [hidden]);
  for (let layer = 0; layer < 3; layer += 1) {
    const at = `encoder.layers.${layer}`;
    for (const norm of ["layer_norm1", "layer_norm2"]) module(`${at}.${norm}`, [hidden]);
    for (const name of ["q", "k", "v", "out"]) {
      module(`${at}.self_attn.${name}_proj`, [hidden, hidden]);
    }
    module(`${at}.mlp.fc1`, [inner, hidden]);
    module(`${at}.mlp.fc2`, [hidden, inner]);
  }
  return shapes;
}

// --- internal ---

function write(name: string, bytes: Uint8Array): string {
  const path = join(folder, `${name}.safetensors`);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, bytes);
  return path;
}

function bytesOf(component: string, shapes: Shapes): Uint8Array {
  return weightsFileBytes({ path: `${component}/model.safetensors`, dtype: "F32", shapes });
}

function plainShapes(): Shapes {
  return {
    "image_proj.norm.weight": [contextSize],
    "image_proj.norm.bias": [contextSize],
    "image_proj.proj.weight": [4 * contextSize, encoderConfig.projection_dim],
    "image_proj.proj.bias": [4 * contextSize],
  };
}

function plusShapes(tokens = 6, hidden = 48, inner = 128): Shapes {
  const shapes: Shapes = {
    latents: [1, tokens, hidden],
    "proj_in.weight": [hidden, encoderConfig.hidden_size],
    "proj_in.bias": [hidden],
    "proj_out.weight": [contextSize, hidden],
    "proj_out.bias": [contextSize],
    "norm_out.weight": [contextSize],
    "norm_out.bias": [contextSize],
  };
  for (let i = 0; i < 4; i += 1) {
    for (const norm of ["0.norm1", "0.norm2", "1.0"]) {
      shapes[`layers.${i}.${norm}.weight`] = [hidden];
      shapes[`layers.${i}.${norm}.bias`] = [hidden];
    }
    shapes[`layers.${i}.0.to_q.weight`] = [inner, hidden];
    shapes[`layers.${i}.0.to_kv.weight`] = [2 * inner, hidden];
    shapes[`layers.${i}.0.to_out.weight`] = [hidden, inner];
    shapes[`layers.${i}.1.1.weight`] = [4 * hidden, hidden];
    shapes[`layers.${i}.1.3.weight`] = [hidden, 4 * hidden];
  }
  return Object.fromEntries(
    Object.entries(shapes).map(([name, shape]) => [`image_proj.${name}`, shape]),
  );
}
