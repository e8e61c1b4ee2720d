/**
 * Writes a model whose UNet computes the same in f32 and has outlier channels, as published of
 * large transformers (LLM.int8, SmoothQuant, QuaRot): some channels of the activations before
 * linear layers are 32 or 64 times as large, and what reads them divides by as much. Powers of two
 * change no rounding in f32, so images in f32 keep their bits.
 */
import { cpSync } from "node:fs";
import { join } from "node:path";
import { readSafetensors, type Tensor, tensorOf, writeAsF32 } from "./safetensors.ts";

const unetFile = "unet/diffusion_pytorch_model.safetensors";
const factors = [32, 64] as const;

/** Copies the diffusers folder `source` to `target` with a `share` of such channels. */
export function writeOutlierModel(source: string, target: string, share: number): void {
  cpSync(source, target, { recursive: true });
  const tensors = readSafetensors(join(source, unetFile));
  const blocks = new Set(
    [...tensors.keys()].flatMap((name) => name.match(/^.*\.transformer_blocks\.\d+\./)?.[0] ?? []),
  );
  for (const block of blocks) injectInto(tensors, block, share);
  writeAsF32(join(target, unetFile), tensors);
}

// --- internal ---

/** What makes a channel, and the layers that read it. */
interface Channels {
  rows: string[];
  readers: string[];
}

const places: readonly Channels[] = [
  {
    rows: ["norm1.weight", "norm1.bias"],
    readers: ["attn1.to_q.weight", "attn1.to_k.weight", "attn1.to_v.weight"],
  },
  { rows: ["norm2.weight", "norm2.bias"], readers: ["attn2.to_q.weight"] },
  { rows: ["norm3.weight", "norm3.bias"], readers: ["ff.net.0.proj.weight"] },
  { rows: ["attn1.to_v.weight"], readers: ["attn1.to_out.0.weight"] },
  { rows: ["attn2.to_v.weight"], readers: ["attn2.to_out.0.weight"] },
  // The half that is multiplied by the gate.
  { rows: ["ff.net.0.proj.weight", "ff.net.0.proj.bias"], readers: ["ff.net.2.weight"] },
];

function injectInto(tensors: Map<string, Tensor>, block: string, share: number): void {
  for (const [index, place] of places.entries()) {
    const of = (name: string) => tensorOf(tensors, block + name);
    const readers = place.readers.map(of);
    const width = readers[0]!.shape[1]!;
    const count = Math.max(1, Math.round(share * width));
    for (let i = 0; i < count; i++) {
      const channel = (17 * index + Math.floor((i * width) / count) + 5 * i) % width;
      const factor = factors[i % factors.length]!;
      for (const rows of place.rows.map(of)) scaleRow(rows, channel, factor);
      for (const reader of readers) scaleColumn(reader, channel, 1 / factor);
    }
  }
}

function scaleRow({ data, shape }: Tensor, row: number, factor: number): void {
  const length = data.length / shape[0]!;
  for (let k = row * length; k < (row + 1) * length; k++) data[k]! *= factor;
}

function scaleColumn({ data, shape }: Tensor, column: number, factor: number): void {
  const width = shape[1]!;
  for (let k = column; k < data.length; k += width) data[k]! *= factor;
}
