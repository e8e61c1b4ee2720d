/**
 * The operations of `bench cpu`, at the sizes of SDXL's UNet (512x512) and VAE. Ours and PyTorch's
 * are timed in turns, with the machine's peak measured before and after, since on a shared machine
 * all three change from minute to minute.
 */
import type { CpuDtype } from "../settings/names.ts";
import type { Case, Program } from "./programs.ts";
import { machine } from "./report.ts";

export interface Operation {
  name: string;
  case: Case;
  /** FLOP of a product. */
  flops?: number;
  /** Bytes that any other operation must read and write. */
  bytes?: number;
}

export const operations: readonly Operation[] = [
  linear(4096, 1280, 1280),
  linear(1024, 640, 640),
  linear(1024, 640, 5120),
  linear(1024, 2560, 640),
  linear(256, 1280, 1280),
  linear(256, 1280, 10240),
  linear(256, 5120, 1280),
  conv(64, 320, 320),
  conv(32, 640, 640),
  conv(16, 1280, 1280),
  conv(16, 2560, 1280),
  conv(64, 512, 512),
  conv(512, 128, 128),
  attention(4096, 4096, 10),
  attention(1024, 1024, 10),
  attention(256, 256, 20),
  attention(1024, 77, 10),
  simple("group_norm", { rows: 64, width: 64, in: 320 }, 3),
  simple("layer_norm", { width: 4096, in: 640 }, 2),
  simple("geglu", { width: 1024, in: 5120 }, 1.5),
  simple("add", { width: 4096, in: 640 }, 3),
  { ...simple("concat", { rows: 32, width: 32, in: 640, out: 640 }, 4), name: "concat 640 + 640" },
];

export interface OperationRow {
  name: string;
  dtype: CpuDtype;
  /** Medians. */
  milliseconds: number;
  peerMilliseconds: number | null;
  /** Median of PyTorch's time over ours, pair by pair. */
  ratio: number | null;
  gflops: number | null;
  gigabytes: number | null;
  /** Share of the multiply-add peak, or of the copy's bandwidth. */
  share: number;
}

export interface Peaks {
  gflops: number;
  gigabytes: number;
}

/** Times every operation; yields row by row. */
export async function* timeOperations(
  native: Program,
  peer: Program | null,
  dtype: CpuDtype,
  pairCount: number,
): AsyncGenerator<OperationRow> {
  for (const operation of operations) {
    const { name, flops, bytes } = operation;
    const before = await peakOf(native, dtype, flops !== undefined);
    const ours: number[] = [];
    const peers: number[] = [];
    const ask = { ...operation.case, compute: dtype };
    for (let i = 0; i < pairCount; i++) {
      ours.push(await native.time(ask));
      if (peer) peers.push(await peer.time({ ...operation.case, dtype }));
    }
    const after = await peakOf(native, dtype, flops !== undefined);
    const milliseconds = median(ours);
    const rate = (flops ?? bytes ?? 0) / milliseconds / 1e6;
    yield {
      name,
      dtype,
      milliseconds,
      peerMilliseconds: peer ? median(peers) : null,
      ratio: peer ? median(peers.map((time, i) => time / ours[i]!)) : null,
      gflops: flops === undefined ? null : rate,
      gigabytes: bytes === undefined ? null : rate,
      share: rate / Math.max(before, after),
    };
  }
}

export async function peaksOf(native: Program, dtype: CpuDtype): Promise<Peaks> {
  return {
    gflops: await peakOf(native, dtype, true),
    gigabytes: await peakOf(native, dtype, false),
  };
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

// --- internal ---

const peakTurns = 400_000;
const peakRepeats = 5;
const copyCase = { op: "copy", width: 65536, in: 1024 };

/** The best of several runs: GFLOP/s of multiply-adds in registers, or GB/s of a copy. */
async function peakOf(native: Program, dtype: CpuDtype, products: boolean): Promise<number> {
  let best = 0;
  const { instructionSet, coreCount } = machine();
  const flops = (turnFlops[instructionSet] ?? 0) * (dtype === "bf16" ? 2 : 1);
  for (let i = 0; i < peakRepeats; i++) {
    if (products) {
      const time = await native.time({ op: "peak", compute: dtype, turns: peakTurns });
      best = Math.max(best, (flops * peakTurns * coreCount) / time / 1e6);
    } else {
      const time = await native.time(copyCase);
      best = Math.max(best, (2 * 4 * copyCase.width * copyCase.in) / time / 1e6);
    }
  }
  return best;
}

/** Multiply-adds per loop iteration, as in zig/bench/peak.zig. */
const turnFlops: Record<string, number> = {
  x86_64: 96,
  x86_64_v3: 192,
  x86_64_v4: 768,
  aarch64: 192,
};

function linear(rows: number, inner: number, out: number): Operation {
  return {
    name: `linear ${rows} x ${inner} x ${out}`,
    case: { op: "linear", width: rows, in: inner, out },
    flops: 2 * rows * inner * out,
  };
}

function conv(side: number, inner: number, out: number): Operation {
  return {
    name: `3x3 ${side}x${side}, ${inner} to ${out}`,
    case: { op: "conv2d", rows: side, width: side, in: inner, out },
    flops: 2 * 9 * side * side * inner * out,
  };
}

function attention(tokens: number, keys: number, heads: number): Operation {
  return {
    name: `attention ${tokens} x ${keys}, ${heads} heads of 64`,
    case: { op: "attention", width: tokens, keys, in: 64 * heads, heads },
    flops: 4 * tokens * keys * 64 * heads,
  };
}

/** `passes`: how often the input's size is read or written. */
function simple(op: string, sizes: Record<string, number>, passes: number): Operation {
  const count = Object.values(sizes).reduce((product, size) => product * size, 1);
  const inputs = op === "concat" ? sizes.rows! * sizes.width! * sizes.in! : count;
  return {
    name: `${op} ${Object.values(sizes).join(" x ")}`,
    case: { op, ...sizes },
    bytes: 4 * inputs * passes,
  };
}
