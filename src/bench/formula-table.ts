/**
 * `bun run bench scaling --formula`: bytes exchanged between ranks and predicted step times,
 * computed from a config alone: 16-bit, full efficiency, statistics in f32. Nothing is generated.
 */
import type { TopLevelSpec } from "vega-lite";
import { layoutOf } from "../pipeline/layout.ts";
import {
  bytes16,
  bytesOf,
  layerBytes,
  links,
  receivedElements,
  type Share,
  stepMs,
  type Traffic,
  type UnetShape,
  unetSizes,
} from "./formula.ts";
import { renderTable } from "./report.ts";

interface FormulaOptions {
  unet: UnetShape;
  /** Pixels per latent. */
  vaeFactor: number;
  sizes: readonly { width: number; height: number }[];
  rankCounts: readonly number[];
  guidance: boolean;
}

/** One layout at one size; bytes are those of the rank that receives the most. */
interface FormulaRow {
  size: string;
  layout: string;
  received: Traffic;
  /** Bytes of DistriFusion's halos: both edge rows of every peer. */
  allGatherHalos: number;
  /** Milliseconds of computation, by `speeds`. */
  computeMs: Record<string, number>;
  /** Milliseconds of transfers, and of a step at the first of `speeds`, by link. */
  links: Record<string, { transferMs: number; asyncMs: number; syncMs: number }>;
}

/** Rates of one H200, dense 16-bit: that of large GEMMs, and 60 % of it. */
const speeds = { "790 TFLOP/s": 790e12, "474 TFLOP/s": 474e12 } as const;

export function formulaRows(o: FormulaOptions): FormulaRow[] {
  const splits = o.guidance ? [false, true] : [false];
  return o.sizes.flatMap((size) =>
    o.rankCounts.flatMap((rankCount) =>
      splits.map((splitBatch) => formulaRow(o, size, rankCount, splitBatch)),
    ),
  );
}

export function formulaTable(rows: readonly FormulaRow[]): string {
  const heads = [
    "size",
    "layout",
    "KV MB",
    "halos MB",
    "(all-gather)",
    "total MB",
    "(all-gather)",
    "gather MB",
    ...Object.keys(links).map((link) => `${link} ms`),
    ...Object.keys(speeds).map((speed) => `ms at ${speed}`),
    ...Object.keys(links).map((link) => `step ms, ${link}`),
    "sync",
  ];
  const cells = rows.map((row) => {
    const { keysValues, halos, gather } = row.received;
    const total = layerBytes(row.received);
    const last = Object.values(row.links).at(-1)!;
    return [
      row.size,
      row.layout,
      megabytes(keysValues),
      megabytes(halos),
      megabytes(row.allGatherHalos),
      megabytes(total),
      megabytes(total - halos + row.allGatherHalos),
      (gather / 1e6).toFixed(2),
      ...Object.values(row.links).map(({ transferMs }) => transferMs.toFixed(2)),
      ...Object.values(row.computeMs).map((ms) => ms.toFixed(1)),
      ...Object.values(row.links).map(({ asyncMs }) => asyncMs.toFixed(1)),
      last.syncMs.toFixed(1),
    ];
  });
  return renderTable(heads, cells);
}

/** Chart of computation and transfers per layout: a transfer that is longer cannot be hidden. */
export function formulaChart(rows: readonly FormulaRow[]): TopLevelSpec {
  const speedName = "790 TFLOP/s" satisfies keyof typeof speeds;
  const values = rows.flatMap(({ size, layout, computeMs, links: byLink }) => [
    { size, layout, what: "compute", ms: computeMs[speedName] },
    ...Object.entries(byLink).map(([what, { transferMs }]) => ({
      size,
      layout,
      what,
      ms: transferMs,
    })),
  ]);
  return {
    title: "Milliseconds per step: computation at 790 TFLOP/s, and transfers",
    data: { values },
    facet: { column: { field: "size", type: "nominal", title: null, sort: null } },
    resolve: { scale: { y: "independent" } },
    spec: {
      height: 260,
      mark: "bar",
      encoding: {
        x: { field: "layout", type: "nominal", sort: null, title: null, axis: { labelAngle: -40 } },
        xOffset: { field: "what", sort: null },
        y: { field: "ms", type: "quantitative", title: "ms" },
        color: { field: "what", type: "nominal", sort: null, title: null },
      },
    },
  };
}

// --- internal ---

function formulaRow(
  o: FormulaOptions,
  { width, height }: { width: number; height: number },
  rankCount: number,
  splitBatch: boolean,
): FormulaRow {
  const rows = height / o.vaeFactor;
  const sizes = unetSizes(o.unet, rows, width / o.vaeFactor);
  const { patches, branchGroups } = layoutOf({
    rankCount,
    guidance: o.guidance,
    splitBatch,
    latentRows: rows,
    rowUnit: 2 ** (o.unet.blockOutChannels.length - 1),
    vaeFactor: o.vaeFactor,
  });
  const branches = o.guidance ? 2 : 1;
  const bytesFor = (patch: number, halos: Share["halos"]) =>
    bytesOf(receivedElements(sizes, { patches, patch, branchGroups, branches, halos }), bytes16);
  const received = patches
    .map((_, patch) => bytesFor(patch, "neighbours"))
    .reduce((most, each) => (layerBytes(each) > layerBytes(most) ? each : most));
  const macs = Object.values(sizes.macs).reduce((sum, count) => sum + count, 0);
  const largest = patches[0]! / rows;
  const flops = (2 * macs * branches * largest) / branchGroups;
  const computeMs = Object.entries(speeds).map(([speed, perSecond]) => [
    speed,
    (1e3 * flops) / perSecond,
  ]);
  const fastest = (1e3 * flops) / speeds["790 TFLOP/s"];
  const byLink = Object.entries(links).map(([link, bytesPerSecond]) => {
    const step = { computeMs: fastest, received, bytesPerSecond };
    const times = {
      transferMs: (1e3 * layerBytes(received)) / bytesPerSecond,
      asyncMs: stepMs({ ...step, synchronous: false }),
      syncMs: stepMs({ ...step, synchronous: true }),
    };
    return [link, times] as const;
  });
  return {
    size: `${width}x${height}`,
    layout: layoutName(branchGroups, patches.length),
    received,
    allGatherHalos: bytesFor(0, "all-gather").halos,
    computeMs: Object.fromEntries(computeMs),
    links: Object.fromEntries(byLink),
  };
}

function layoutName(branchGroups: number, patchCount: number): string {
  if (branchGroups === 1) return `${patchCount} patches`;
  return patchCount === 1 ? "2 branches" : `2 branches x ${patchCount} patches`;
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(bytes > 0 && bytes < 1e6 ? 2 : 0);
}
