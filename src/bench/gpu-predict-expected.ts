/**
 * The part of `bench gpu --predict` about what is expected of an H200: the changes of a step one by
 * one, the efficiencies and their sources, and the published figures that they are held against.
 */
import { changeRows, type State } from "./gpu-changes.ts";
import {
  attentionRates,
  efficiencies,
  publishedProducts,
  publishedSteps,
  type Range,
} from "./gpu-efficiencies.ts";
import { h200, productRatio, sumExpected, whole } from "./gpu-expected.ts";
import { floorMs } from "./gpu-work.ts";
import { renderTable } from "./report.ts";

/** Milliseconds of a step that is asked for, as expected. */
export const expectedBar = 29;

/** A step with one change more than the row before. */
export interface ChangeRow {
  change: string;
  /** Whether the code has it. */
  isBuilt: boolean;
  launches: number;
  bytes: number;
  /** Milliseconds at ceilings, launches of 1 us included. */
  ceiling: number;
  expected: Range;
}

export function changesOf(built: State): ChangeRow[] {
  return changeRows(built).map(({ name, isBuilt, state }) => {
    const sum = (of: (entry: State["entries"][number]) => number) =>
      state.entries.reduce((all, entry) => all + entry.count * of(entry), 0);
    const launches = sum(({ cost }) => cost.launches);
    return {
      change: name,
      isBuilt,
      launches,
      bytes: sum(({ cost }) => cost.bytes),
      ceiling: sum((entry) => floorMs(entry, h200)) + launches / 1e3,
      expected: whole(sumExpected(state.entries, state.kernels)),
    };
  });
}

export function expectedReport(changes: readonly ChangeRow[]): string {
  const parts = [
    `Expected of an H200, ms (all efficiencies at their best, all at their worst). What each \
change does to the step, added to those above it; the bar is ${expectedBar} ms:`,
    changeTable(changes),
    "Efficiencies, none of them measured with this code:",
    efficiencyTable(),
    `Waves of blocks on ${h200.multiprocessors} multiprocessors are computed for each product from \
cuBLASLt's tiles and for each attention from blocks of ${attentionRates.queryRows} rows; \
attention's published rates (TFLOP/s, 1024 and 4096 tokens, heads of 64; arXiv 2407.08608) are \
FlashAttention-2 ${rates("flash2")} and cuDNN ${rates("cudnn")}. The rate of products comes from \
published ones, beside which the model has:`,
    productTable(),
    "Steps of others at 1024x1024 with guidance in 16 bits, which the model was not fitted to:",
    stepTable(),
    "Their best reaches 305 TFLOP/s; the model expects more of newer kernels and may be too kind.",
  ];
  return `${parts.map((part) => part.trimEnd()).join("\n\n")}\n`;
}

/** "27.9 (24.5 to 35.3)". */
export function rangeText({ fast, expected, slow }: Range): string {
  return `${expected.toFixed(2)} (${fast.toFixed(2)} to ${slow.toFixed(2)})`;
}

// --- internal ---

function changeTable(changes: readonly ChangeRow[]): string {
  const cells = changes.map((row, index) => {
    const before = changes[index - 1] ?? row;
    return [
      row.change,
      row.isBuilt ? "yes" : "no",
      String(row.launches),
      (row.bytes / 1e9).toFixed(2),
      row.ceiling.toFixed(2),
      rangeText(row.expected),
      (row.expected.expected - before.expected.expected).toFixed(2),
    ];
  });
  const heads = ["change", "in the code", "launches", "GB", "ceilings", "expected", "difference"];
  return renderTable(heads, cells);
}

function efficiencyTable(): string {
  const cells = Object.values(efficiencies).map(({ what, unit, fast, expected, slow, source }) => {
    const text = (value: number) =>
      unit === "us" ? `${value} us` : `${Math.round(100 * value)} %`;
    return [what, text(expected), text(fast), text(slow), source];
  });
  return renderTable(["efficiency", "expected", "best", "worst", "source"], cells);
}

function rates(kind: "flash2" | "cudnn"): string {
  const { tokens1k, tokens4k } = attentionRates[kind];
  return `${tokens1k / 1e12} and ${tokens4k / 1e12}`;
}

function productTable(): string {
  const cells = publishedProducts.map((product) => {
    const { m, n, k, flopsPerSecond, source } = product;
    const published = flopsPerSecond / 1e12;
    const modelled = published / productRatio(product);
    return [`${m} x ${n} x ${k}`, published.toFixed(0), modelled.toFixed(0), source];
  });
  return renderTable(["product, H100", "published TFLOP/s", "model", "source"], cells);
}

function stepTable(): string {
  const cells = publishedSteps.map(({ what, ms, source }) => [what, ms.toFixed(1), source]);
  return renderTable(["step", "ms", "source"], cells);
}
