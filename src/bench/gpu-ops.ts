/**
 * The per-operation part of `bench gpu`: every operation of a UNet step, the VAE and the text
 * encoders, with the shapes of the real graph, for each number of patches. Compared with the
 * ceilings measured in the same run, and with PyTorch in turns.
 */
import { BasedXLError } from "../errors.ts";
import type { Model } from "../models/model.ts";
import type { Operation, PlannedOperation } from "../native/plan.ts";
import { median } from "./cpu-ops.ts";
import { busiest } from "./gpu-predict.ts";
import type { GpuBench, GpuPeer } from "./gpu-programs.ts";
import {
  type Ceilings,
  type GpuDtype,
  isProduct,
  type Kind,
  kindOf,
  nameOf,
  planFor,
} from "./gpu-work.ts";
import { renderTable } from "./report.ts";

/** One operation of a patch, with `patches` in all. */
export interface OperationJob {
  patches: number;
  part: "UNet" | "VAE" | "text";
  entry: PlannedOperation;
}

export interface OperationRow {
  patches: number;
  part: OperationJob["part"];
  kind: Kind;
  name: string;
  /** Calls in one step, one decoding or one prompt. */
  count: number;
  /** Medians of one run on the GPU. */
  ms: number;
  peerMs: number | null;
  /** PyTorch's time over ours, of medians. */
  ratio: number | null;
  /** Time of cuDNN's fused attention, for self-attention. */
  cudnnMs: number | null;
  /** FLOP per second of compute-bound operations, else bytes per second. */
  perSecond: number;
  isProduct: boolean;
  /** Share of the measured ceiling. */
  share: number;
  /** Image tokens and head size, for self-attention. */
  attention: { tokens: number; headSize: number } | null;
}

/** The timed operations; the others move almost nothing and cost one launch each. */
export function jobsOf(
  model: Model,
  side: number,
  patches: readonly number[],
  dtype: GpuDtype,
  int8 = false,
): OperationJob[] {
  return patches.flatMap((rankCount, i) => {
    const size = { width: side, height: side };
    const plan = planFor({ model, ...size, rankCount, splitBatch: false, dtype, int8 });
    const stages = { denoise: "UNet", decode: "VAE", text: "text" } as const;
    return busiest(plan.passes[0]!.ranks).operations.flatMap((entry): OperationJob[] => {
      const part = stages[entry.place.stage as keyof typeof stages];
      // The VAE is split into patches like the UNet: time its operations for one patch count only.
      if (part === undefined || (part !== "UNet" && i > 0)) return [];
      return isTimed(entry) ? [{ patches: rankCount, part, entry }] : [];
    });
  });
}

/** A large GEMM by cuBLASLt and a large copy. `quick`: small ones, for the emulator. */
export function ceilingOperations(quick: boolean) {
  const side = quick ? 64 : 8192;
  const copyElements = quick ? 1 << 12 : 1 << 28;
  return {
    product: { ...blank, op: "linear", width: side, in: side, out: side },
    productFlops: 2 * side ** 3,
    copy: { ...blank, op: "copy", width: copyElements / 64, in: 64 },
    /** Read and written. */
    copyBytes: 2 * 2 * copyElements,
  };
}

export async function measureCeilings(bench: GpuBench, quick: boolean): Promise<Ceilings> {
  const { product, productFlops, copy, copyBytes } = ceilingOperations(quick);
  const least = async (operation: Operation) => {
    let ms = Number.POSITIVE_INFINITY;
    for (let i = 0; i < (quick ? 1 : 5); i++) ms = Math.min(ms, await bench.time(operation));
    return ms;
  };
  return {
    flopsPerSecond: (1e3 * productFlops) / (await least(product)),
    bytesPerSecond: (1e3 * copyBytes) / (await least(copy)),
  };
}

/** Times every operation; yields row by row. Failed operations are reported and skipped. */
export async function* timeOperations(
  bench: GpuBench,
  peer: GpuPeer | null,
  jobs: readonly OperationJob[],
  ceilings: Ceilings,
  dtype: GpuDtype,
  pairCount: number,
): AsyncGenerator<OperationRow> {
  for (const job of jobs) {
    try {
      yield await timeOne(bench, peer, job, ceilings, dtype, pairCount);
    } catch (error) {
      if (!(error instanceof BasedXLError)) throw error;
      process.stdout.write(`${nameOf(job.entry.operation)}: ${error.message}\n`);
      await bench.restart();
    }
  }
}

export function operationTable(rows: readonly OperationRow[]): string {
  const cells = rows.map((row) => [
    row.part,
    String(row.patches),
    row.name,
    String(row.count),
    (1e3 * row.ms).toFixed(1),
    row.isProduct
      ? `${(row.perSecond / 1e12).toFixed(1)} TFLOP/s`
      : `${(row.perSecond / 1e9).toFixed(0)} GB/s`,
    `${(100 * row.share).toFixed(0)} %`,
    (row.count * row.ms).toFixed(2),
    row.peerMs === null ? "-" : (1e3 * row.peerMs).toFixed(1),
    row.ratio?.toFixed(2) ?? "-",
    row.cudnnMs === null ? "-" : (1e3 * row.cudnnMs).toFixed(1),
  ]);
  const heads = ["part", "patches", "operation", "count", "us", "rate", "of ceiling", "all ms"];
  return renderTable([...heads, "PyTorch us", "PyTorch / ours", "cuDNN us"], cells);
}

/** Milliseconds of a whole UNet step of one patch, operation by operation. */
export function summedSteps(rows: readonly OperationRow[]): { patches: number; ms: number }[] {
  const counts = [...new Set(rows.map(({ patches }) => patches))];
  return counts.map((patches) => ({
    patches,
    ms: rows
      .filter((row) => row.part === "UNet" && row.patches === patches)
      .reduce((sum, { count, ms }) => sum + count * ms, 0),
  }));
}

// --- internal ---

async function timeOne(
  bench: GpuBench,
  peer: GpuPeer | null,
  { patches, part, entry }: OperationJob,
  ceilings: Ceilings,
  dtype: GpuDtype,
  pairCount: number,
): Promise<OperationRow> {
  const { operation, cost, count } = entry;
  const kind = kindOf(operation);
  const isSelf = kind === "self-attention" && part === "UNet";
  const asked = peerCase(operation);
  const ours: number[] = [];
  const peers: number[] = [];
  const cudnn: number[] = [];
  for (let i = 0; i < pairCount; i++) {
    ours.push(await bench.time(operation));
    if (!peer || asked === undefined) continue;
    const theirs = await peer.time({ ...asked, dtype });
    if (theirs !== null) peers.push(theirs);
  }
  // In a second loop, since the PyTorch peer keeps the operands of one case only.
  for (let i = 0; i < pairCount && peer && isSelf; i++) {
    const fused = await peer.time({ ...operation, dtype, backend: "cudnn" });
    if (fused !== null) cudnn.push(fused);
  }
  const ms = median(ours);
  const peerMs = peers.length > 0 ? median(peers) : null;
  const product = isProduct(entry);
  const perSecond = (1e3 * (product ? cost.flops : cost.bytes)) / ms;
  return {
    patches,
    part,
    kind,
    name: nameOf(operation),
    count,
    ms,
    peerMs,
    ratio: peerMs === null || isHalfNorm(operation) ? null : peerMs / ms,
    cudnnMs: cudnn.length > 0 ? median(cudnn) : null,
    perSecond,
    isProduct: product,
    share: perSecond / (product ? ceilings.flopsPerSecond : ceilings.bytesPerSecond),
    attention: isSelf ? { tokens: operation.keys, headSize: operation.in / operation.heads } : null,
  };
}

/** Below this number of bytes, the launch latency dominates. */
const bytesMin = 4096;

/** Operations that gpu-bench does not implement (zig/bench/gpu_cases.zig). */
const untimed = new Set([
  "combine_statistics",
  "embed_tokens",
  "gather_tokens",
  "sinusoids",
  "quantize_change",
  "apply_change",
  "is_finite",
  "latent_step",
  "mask_blend",
]);

const blank: Omit<Operation, "op"> = {
  batch: 1,
  rows: 1,
  width: 1,
  in: 1,
  out: 1,
  kernel: 1,
  stride: 1,
  padding: 0,
  scale: 1,
  halos: 0,
  keys: 0,
  chunks: 1,
  heads: 1,
  groups: 1,
  causal: false,
  bias: false,
  residual: false,
  int8: false,
  activation: "none",
};

const peerOps = new Set([
  "linear",
  "linear_geglu",
  "conv2d",
  "attention",
  "cross_attention",
  "layer_norm",
  "geglu",
  "add",
  "concat",
]);

/** PyTorch's group norm is one operation: it is compared with our second pass. */
function isHalfNorm({ op }: Operation): boolean {
  return op === "group_norm_apply";
}

function peerCase(operation: Operation): Operation | undefined {
  if (isHalfNorm(operation)) return { ...operation, op: "group_norm" };
  return peerOps.has(operation.op) ? operation : undefined;
}

function isTimed({ operation, cost }: PlannedOperation): boolean {
  return !untimed.has(operation.op) && cost.bytes >= bytesMin;
}
