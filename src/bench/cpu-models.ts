/**
 * Whole models at SDXL's full size: ours in this process, PyTorch's in a peer process, in turns.
 * Weights are random; text encoders, one UNet call (batch 1) and the VAE's decoder are timed.
 */

import { readFileSync } from "node:fs";
import { openModelFolder } from "../models/folder.ts";
import { nativeModelOf } from "../models/native-model.ts";
import { ModelParts } from "../native/testing.ts";
import { promptTokenCount } from "../prompt/tokenizer.ts";
import type { CpuDtype } from "../settings/names.ts";
import { median } from "./cpu-ops.ts";
import type { Program } from "./programs.ts";

export const modelOps = ["text", "unet", "vae"] as const;
export type ModelOp = (typeof modelOps)[number];

export interface ModelRow {
  op: ModelOp;
  /** Side of the image in pixels. */
  side: number;
  dtype: CpuDtype;
  /** Medians. */
  milliseconds: number;
  peerMilliseconds: number | null;
  /** Median of PyTorch's time over ours, pair by pair. */
  ratio: number | null;
  /** RssAnon of this process in GB, after the run; null where the system does not report it. */
  residentAnonymous: number | null;
}

export interface ModelJob {
  op: ModelOp;
  side: number;
}

/** Times every job; yields row by row. The first run of each is discarded. */
export async function* timeModels(
  folder: string,
  jobs: readonly ModelJob[],
  peer: Program | null,
  dtype: CpuDtype,
  pairCount: number,
): AsyncGenerator<ModelRow> {
  const model = await openModelFolder(folder);
  const parts = await ModelParts.open(nativeModelOf(model), { dtype });
  try {
    for (const { op, side } of jobs) {
      const latent = side / model.vaeFactor;
      await runPart(parts, op, latent);
      const ours: number[] = [];
      const peers: number[] = [];
      const what = { op, model: folder, rows: latent, width: latent, dtype };
      for (let i = 0; i < pairCount; i++) {
        if (peer) peers.push(await peer.time(what));
        ours.push(await runPart(parts, op, latent));
      }
      yield {
        op,
        side,
        dtype,
        milliseconds: median(ours),
        peerMilliseconds: peer ? median(peers) : null,
        ratio: peer ? median(peers.map((time, i) => time / ours[i]!)) : null,
        residentAnonymous: residentAnonymous(),
      };
    }
  } finally {
    await parts.close();
  }
}

/** Milliseconds of one network for a latent of `latent` x `latent`. */
export async function runPart(parts: ModelParts, op: ModelOp, latent: number): Promise<number> {
  if (op === "vae") {
    return (await parts.decode(random(4 * latent ** 2), latent, latent)).milliseconds;
  }
  if (op === "unet") {
    const { milliseconds } = await parts.noisePrediction({
      sample: random(4 * latent ** 2),
      batch: 1,
      latentRows: latent,
      latentWidth: latent,
      timestep: 601,
      promptEmbeds: random(promptTokenCount * 2048),
      pooled: random(1280),
      timeIds: random(6),
    });
    return milliseconds;
  }
  const ids = new Int32Array(promptTokenCount).fill(5);
  const start = performance.now();
  await parts.promptEmbeds({ ids, ids2: ids.slice(), endIndex2: promptTokenCount - 1 });
  return performance.now() - start;
}

/**
 * Fits milliseconds = a + b n + c n^2, n in megapixels, by least squares of relative errors: a is
 * the cost of reading weights, b of the products, c of self-attention.
 */
export function fitSizes(rows: readonly Pick<ModelRow, "side" | "milliseconds">[]): number[] {
  const n = Math.min(3, rows.length);
  const matrix = Array.from({ length: n }, () => new Array<number>(n + 1).fill(0));
  for (const { side, milliseconds } of rows) {
    const megapixels = side ** 2 / 1e6;
    const terms = Array.from({ length: n }, (_, i) => megapixels ** i / milliseconds);
    for (const [i, row] of matrix.entries()) {
      for (let j = 0; j < n; j++) row[j]! += terms[i]! * terms[j]!;
      row[n]! += terms[i]!;
    }
  }
  return solve(matrix);
}

// --- internal ---

function random(count: number): Float32Array {
  return Float32Array.from({ length: count }, () => Math.random() * 2 - 1);
}

function residentAnonymous(): number | null {
  try {
    const status = readFileSync("/proc/self/status", "utf8");
    return Number(/RssAnon:\s+(\d+)/.exec(status)?.[1]) / 1e6;
  } catch {
    return null;
  }
}

/** Gauss-Jordan elimination with pivoting; rows are coefficients and the right-hand side. */
function solve(matrix: number[][]): number[] {
  for (let i = 0; i < matrix.length; i++) {
    const below = matrix.slice(i).toSorted((a, b) => Math.abs(b[i]!) - Math.abs(a[i]!));
    matrix.splice(i, below.length, ...below);
    const pivot = matrix[i]!;
    for (const [j, row] of matrix.entries()) {
      if (j === i) continue;
      const factor = row[i]! / pivot[i]!;
      for (let k = i; k < row.length; k++) row[k]! -= factor * pivot[k]!;
    }
  }
  return matrix.map((row, i) => row.at(-1)! / row[i]!);
}
