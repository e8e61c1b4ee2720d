/**
 * The limits of `bench gpu`, each beside the measured value. Emulated runs are not judged: their
 * times are the CPU's.
 */
import type { ModelRow, PeerRow } from "./gpu-models.ts";
import type { OperationRow } from "./gpu-ops.ts";
import { memoryBar } from "./gpu-predict.ts";
import { renderTable } from "./report.ts";

export interface Bar {
  what: string;
  /** The value with its unit. */
  bar: string;
  measured: string;
  /** null where nothing was measured. */
  isMet: boolean | null;
}

export interface Measured {
  operations: readonly OperationRow[];
  models: readonly ModelRow[];
  peers: readonly PeerRow[];
}

/** Of SDXL at 1024x1024 with guidance, on one H200. */
export const limits = { stepMs: 28.5, secondStepMs: 25, imageSeconds: 0.95, decodeMs: 40 } as const;

const kindsOfMemory = new Set(["group norms", "layer norms", "GEGLU", "convolution inputs"]);
/** Operations that move fewer bytes are bound by launch latency. */
const memoryBytesMin = 16e6;

export function barsOf({ operations, models, peers }: Measured, isEmulated: boolean): Bar[] {
  const full = models.filter(({ side, variant }) => side === 1024 && variant === "f16");
  const best = full[0];
  const bars: Bar[] = [
    atMost("UNet step, 1024x1024 with guidance", best?.stepMs, limits.stepMs, "ms"),
    atMost("the same, second bar", best?.stepMs, limits.secondStepMs, "ms"),
    atMost(
      "30 steps with VAE, 1024x1024",
      best && best.steps === 30 ? best.imageMs / 1e3 : undefined,
      limits.imageSeconds,
      "s",
    ),
    atMost("VAE decode, 1024x1024", best?.decodeMs, limits.decodeMs, "ms"),
    atMost("memory on one rank, 1024x1024", gigabytes(best?.measuredBytes), memoryBar / 1e9, "GB"),
    nearPlan(best),
    attention(operations),
    bandwidth(operations),
    againstPeer(best, peers),
  ];
  return isEmulated ? bars.map((bar) => ({ ...bar, isMet: null })) : bars;
}

export function barTable(bars: readonly Bar[]): string {
  const words = (isMet: boolean | null) => (isMet === null ? "not judged" : isMet ? "yes" : "NO");
  const cells = bars.map(({ what, bar, measured, isMet }) => [what, measured, bar, words(isMet)]);
  return renderTable(["what", "measured", "bar", "met"], cells);
}

// --- internal ---

function gigabytes(bytes: number | null | undefined): number | undefined {
  return bytes === null || bytes === undefined ? undefined : bytes / 1e9;
}

function atMost(what: string, value: number | undefined, limit: number, unit: string): Bar {
  return {
    what,
    bar: `<= ${limit} ${unit}`,
    measured: value === undefined ? "-" : `${value.toFixed(2)} ${unit}`,
    isMet: value === undefined ? null : value <= limit,
  };
}

function nearPlan(row: ModelRow | undefined): Bar {
  const measured = row?.measuredBytes ?? null;
  const off = row && measured !== null ? measured / row.plannedBytes - 1 : null;
  return {
    what: "memory against the plan",
    bar: "within 3 %",
    measured: off === null ? "-" : `${off > 0 ? "+" : ""}${(100 * off).toFixed(1)} %`,
    isMet: off === null ? null : Math.abs(off) <= 0.03,
  };
}

/** 4096 tokens, heads of 64, against cuDNN's fused attention (selected by name in PyTorch). */
function attention(rows: readonly OperationRow[]): Bar {
  const row = rows.find(
    ({ patches, attention: of }) => patches === 1 && of?.tokens === 4096 && of.headSize === 64,
  );
  const ratio = row?.cudnnMs ? row.cudnnMs / row.ms : null;
  return {
    what: "attention of 4096 tokens, heads of 64",
    bar: ">= 0.9 x cuDNN's",
    measured: ratio === null ? "-" : `${ratio.toFixed(2)} x`,
    isMet: ratio === null ? null : ratio >= 0.9,
  };
}

/** The slowest of one rank's norms and elementwise operations that are not bound by launches. */
function bandwidth(rows: readonly OperationRow[]): Bar {
  const judged = rows.filter(
    ({ patches, part, kind, perSecond, ms }) =>
      patches === 1 &&
      part === "UNet" &&
      kindsOfMemory.has(kind) &&
      (perSecond * ms) / 1e3 >= memoryBytesMin,
  );
  const worst = judged.toSorted((a, b) => a.share - b.share)[0];
  return {
    what: `norms and elementwise, the worst${worst ? ` (${worst.name})` : ""}`,
    bar: ">= 80 % of a copy",
    measured: worst ? `${(100 * worst.share).toFixed(0)} %` : "-",
    isMet: worst ? worst.share >= 0.8 : null,
  };
}

function againstPeer(row: ModelRow | undefined, peers: readonly PeerRow[]): Bar {
  const compiled = peers.find(
    ({ what, side, compile }) => what === "unet" && side === 1024 && compile !== "",
  );
  const ratio = row && compiled?.ms ? compiled.ms / row.stepMs : null;
  return {
    what: "UNet step against compiled PyTorch",
    bar: "> 1 x",
    measured: ratio === null ? "-" : `${ratio.toFixed(2)} x`,
    isMet: ratio === null ? null : ratio > 1,
  };
}
