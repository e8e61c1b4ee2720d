/**
 * `bun run bench scaling --patches FILE`: predicted times of several GPUs, from the times of
 * patches alone on one GPU (gpu-patches.json of `bench gpu`) and the bytes of the formula. Step and
 * decoding of n ranks are those of the timed patch.
 */
import type { TopLevelSpec } from "vega-lite";
import {
  bytes16,
  bytesOf,
  layerBytes,
  links,
  receivedElements,
  stepMs,
  type Traffic,
  unetSizes,
} from "./formula.ts";
import type { PatchFile, PatchRow } from "./gpu-patches.ts";
import { renderTable } from "./report.ts";

/** Prediction for one layout; an image has `imageSteps` steps, the first ones synchronous. */
interface PatchPrediction extends PatchRow {
  layout: string;
  received: Traffic;
  /** Efficiency: one rank's step over n times this patch's, 1 without overhead. */
  efficiency: number;
  /** By link: a step, and an image with its decoding. */
  asyncMs: Record<string, number>;
  syncMs: Record<string, number>;
  imageMs: Record<string, number>;
  speedUp: Record<string, number>;
}

const imageSteps = 50;
/** The first step and DistriFusion's default number of warm-up steps. */
const synchronousSteps = 5;

export function predictPatches(file: PatchFile): PatchPrediction[] {
  const predictions = file.rows.map((row) => extrapolateRow(file, row));
  for (const row of predictions) {
    const alone = predictions.find(({ ranks, side }) => ranks === 1 && side === row.side);
    if (!alone) continue;
    row.efficiency = alone.stepMs / (row.ranks * row.stepMs);
    for (const link of Object.keys(links)) {
      row.speedUp[link] = alone.imageMs[link]! / row.imageMs[link]!;
    }
  }
  return predictions;
}

export function patchTitle({ gpu, isEmulated, model, dtype }: PatchFile): string {
  const what = `${model}, ${dtype}, patches timed alone on one ${gpu}, transfers by the formula`;
  const image = `an image has ${imageSteps} steps, ${synchronousSteps} of them synchronous`;
  const warning = isEmulated ? "EMULATED: TIMES ARE MEANINGLESS. " : "";
  return `${warning}${what}; ${image}:`;
}

export function patchTable(rows: readonly PatchPrediction[]): string {
  const names = Object.keys(links);
  const cells = rows.map((row) => [
    `${row.side}x${row.side}`,
    String(row.ranks),
    row.layout,
    row.stepMs.toFixed(2),
    row.efficiency.toFixed(2),
    (layerBytes(row.received) / 1e6).toFixed(1),
    ...names.map((link) => row.asyncMs[link]!.toFixed(2)),
    ...names.map((link) => row.syncMs[link]!.toFixed(2)),
    row.decodeMs.toFixed(1),
    ...names.map((link) => (row.imageMs[link]! / 1e3).toFixed(3)),
    names.map((link) => row.speedUp[link]?.toFixed(2) ?? "-").join(" / "),
  ]);
  const heads = [
    "size",
    "ranks",
    "layout",
    "patch ms",
    "eff",
    "received MB",
    ...names.map((link) => `${link} ms`),
    ...names.map((link) => `sync ${link} ms`),
    "VAE ms",
    ...names.map((link) => `image ${link} s`),
    "speed-up",
  ];
  return renderTable(heads, cells);
}

export function patchChart(rows: readonly PatchPrediction[]): TopLevelSpec {
  const values = rows.flatMap(({ side, ranks, layout, speedUp }) =>
    Object.entries(speedUp).map(([link, gain]) => ({
      size: `${side}x${side}`,
      ranks,
      line: `${link}, ${layout.includes("branches") ? "branches split" : "patches alone"}`,
      gain,
    })),
  );
  return {
    title: `Predicted speed-up of ${imageSteps} steps and decoding`,
    data: { values },
    facet: { column: { field: "size", type: "nominal", title: null, sort: null } },
    spec: {
      width: 260,
      height: 240,
      mark: { type: "line", point: true },
      encoding: {
        x: { field: "ranks", type: "ordinal", axis: { labelAngle: 0 } },
        y: { field: "gain", type: "quantitative", title: null },
        color: { field: "line", type: "nominal", sort: null, title: null },
      },
    },
  };
}

// --- internal ---

function extrapolateRow(file: PatchFile, row: PatchRow): PatchPrediction {
  const latent = row.side / file.vaeFactor;
  const sizes = unetSizes(file.unet, latent, latent);
  const { patches, patch, branchGroups } = row;
  const share = { patches, patch, branchGroups, branches: 2, halos: "neighbours" } as const;
  const received = bytesOf(receivedElements(sizes, share), bytes16);
  const asyncMs: Record<string, number> = {};
  const syncMs: Record<string, number> = {};
  const imageMs: Record<string, number> = {};
  for (const [link, bytesPerSecond] of Object.entries(links)) {
    const step = { computeMs: row.stepMs, received, bytesPerSecond };
    asyncMs[link] = stepMs({ ...step, synchronous: false });
    syncMs[link] = stepMs({ ...step, synchronous: true });
    const later = (imageSteps - synchronousSteps) * asyncMs[link];
    imageMs[link] = synchronousSteps * syncMs[link] + later + row.decodeMs;
  }
  const branches = branchGroups === 2 ? "2 branches" : "";
  const shares = patches.length > 1 ? `${patches.length} patches` : "";
  const layout = [branches, shares].filter((part) => part !== "").join(" x ") || "alone";
  return { ...row, layout, received, efficiency: 1, asyncMs, syncMs, imageMs, speedUp: {} };
}
