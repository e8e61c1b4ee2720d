/**
 * `bun run bench scaling`: computation, received bytes and wait time of a rank per step, and from
 * them the predicted step time where every rank has its own device. One thread per rank;
 * computation is measured as CPU time, since there may be more ranks than cores.
 */

import { loadavg } from "node:os";
import type { ArgsDef } from "citty";
import type { TopLevelSpec } from "vega-lite";
import { badOption } from "../errors.ts";
import { rankCountMax } from "../native/abi.ts";
import type { RankStats, Session } from "../pipeline/session.ts";
import { medianMs } from "../pipeline/timings.ts";
import { type SyncMode, syncModes } from "../settings/names.ts";
import { type HelpText, renderHelp } from "../terminal/help.ts";
import { type Flags, namesOf, readFlags, sharedFlags, sizeOf, textOf, wholesOf } from "./flags.ts";
import { links, sdxl, stepMs, type Traffic } from "./formula.ts";
import { formulaChart, formulaRows, formulaTable } from "./formula-table.ts";
import {
  feasibleRankCounts,
  type Generation,
  generateImage,
  layoutFor,
  openRanks,
  type Ranks,
  readGeneration,
} from "./generation.ts";
import { readPatchFile } from "./gpu-patches.ts";
import { machine, renderTable, writeReport } from "./report.ts";
import { patchChart, patchTable, patchTitle, predictPatches } from "./scaling-patches.ts";

const ranksDefault = [2, 4, 8];
const stepsDefault = 24;
/** Steps before the measured ones: the first is synchronous in every mode. */
const stepsBefore = 2;
const repeatCount = 5;
const modesDefault: readonly SyncMode[] = ["corrected_async_gn", "full_sync"];
const sdxlUnit = 32;

const flagTexts = {
  ...sharedFlags,
  ranks: {
    type: "string",
    valueHint: "LIST",
    description: `Rank counts. Default: those of ${ranksDefault} that the height allows.`,
  },
  modes: { ...sharedFlags.modes, description: `Sync modes. Default: ${modesDefault}.` },
  "split-batch": {
    type: "boolean",
    description: "Split the guidance branches over an even number of ranks first, as sample does.",
  },
  patches: {
    type: "string",
    valueHint: "FILE",
    description:
      "Generate nothing: predict from patch times measured on one GPU (gpu-patches.json of " +
      "`bench gpu`).",
  },
  formula: {
    type: "boolean",
    description:
      "Generate nothing: predict from the config alone, for SDXL at 1024x1024 and 3840x3840, or " +
      "for --model and --size.",
  },
} as const satisfies ArgsDef;

const help: HelpText = {
  usage: "bun run bench scaling [flags]",
  summary:
    "Measures computation, received bytes and wait time of a step for several rank counts, and " +
    "predicts a step's time over NVLink and PCIe 5 (src/bench/README.md has the formula).",
  examples: [
    "bun run bench scaling",
    "bun run bench scaling --ranks 2,3,4 --size 256x256",
    "bun run bench scaling --formula",
    "bun run bench scaling --patches bench-out/gpu-patches.json",
  ],
  groups: [
    ["Images", ["model", "size", "guidance-scale", "steps", "scheduler"]],
    ["How", ["ranks", "modes", "split-batch", "formula", "patches"]],
    ["Output", ["out", "help"]],
  ],
  notes: [],
};

/** Figures per rank and step; bytes are those of the rank that receives the most. */
interface Row {
  ranks: number;
  layout: string;
  mode: SyncMode;
  /** CPU time. */
  computeMs: number;
  /** Wait time for peers' tensors, on this machine: the mean over ranks, and the maximum. */
  waitMs: number;
  waitMsMax: number;
  wallMs: number;
  received: Traffic;
  /** Efficiency: one rank's time over the sum of all ranks' times, 1 without overhead. */
  efficiency: number;
  predictedMs: Record<string, number>;
}

export async function run(args: string[]): Promise<number> {
  const flags = readFlags(args, flagTexts);
  if (flags.help) {
    process.stdout.write(renderHelp(help, flagTexts));
    return 0;
  }
  const out = textOf(flags, "out") ?? "bench-out";
  const rankCounts = wholesOf(flags, "ranks", { min: 2, max: rankCountMax });
  const patchFile = textOf(flags, "patches");
  if (patchFile !== undefined) return await runPatches(patchFile, out);
  if (flags.formula) return await runFormula(flags, rankCounts ?? ranksDefault, out);

  const modes = namesOf(flags, "modes", syncModes) ?? modesDefault;
  const splitBatch = flags["split-batch"] === true;
  const generation = await readGeneration(flags, stepsDefault);
  if (generation.stepCount <= stepsBefore) {
    throw badOption(`--steps must be above ${stepsBefore}: the first steps are not measured.`);
  }
  const counts = feasibleRankCounts(generation, rankCounts, ranksDefault, splitBatch);
  const { model, width, height, guidanceScale, stepCount } = generation;
  const loadBefore = loadavg()[0] ?? 0;
  const { coreCount } = machine();
  process.stdout.write(
    `${model.name}, ${width}x${height}, guidance ${guidanceScale}, f32, one thread per rank; per ` +
      `rank and step, from step ${stepsBefore + 1} to ${stepCount}:\n\n`,
  );
  const rows = await measure(generation, counts, modes, splitBatch);
  process.stdout.write(`${table(rows)}\n`);
  if (loadBefore > coreCount / 4) {
    process.stdout.write(
      `Times are unreliable: the load was ${loadBefore.toFixed(1)} on ${coreCount} cores before.\n`,
    );
  }
  const settings = { model: model.name, machine: machine(), width, height, guidanceScale };
  const data = { ...settings, loadBefore, stepCount, stepsBefore, repeatCount, links, rows };
  await writeReport(out, "scaling", data, chart(rows));
  return 0;
}

// --- internal ---

async function runFormula(flags: Flags, rankCounts: number[], out: string): Promise<number> {
  // Without --model, SDXL's config is built in.
  const generation = textOf(flags, "model") === undefined ? null : await readGeneration(flags);
  const size = generation ?? sizeOf(flags, sdxlUnit);
  const sizes = size ? [size] : [1024, 3840].map((side) => ({ width: side, height: side }));
  const rows = formulaRows({
    unet: generation?.model.unet ?? sdxl,
    vaeFactor: generation?.model.vaeFactor ?? 8,
    sizes: sizes.map(({ width, height }) => ({ width, height })),
    rankCounts,
    guidance: generation === null || generation.guidanceScale > 1,
  });
  const name = generation?.model.name ?? "SDXL";
  process.stdout.write(
    `${name}, 16-bit, received per rank and step; (all-gather): with DistriFusion's halos:\n\n` +
      `${formulaTable(rows)}\nStep times at 790 TFLOP/s; sync: over the last link.\n`,
  );
  await writeReport(out, "scaling-formula", { model: name, links, rows }, formulaChart(rows));
  return 0;
}

async function runPatches(path: string, out: string): Promise<number> {
  const file = readPatchFile(path);
  const rows = predictPatches(file);
  process.stdout.write(`${patchTitle(file)}\n\n${patchTable(rows)}\n`);
  const { gpu, isEmulated, model, dtype } = file;
  const data = { gpu, isEmulated, model, dtype, links, rows };
  await writeReport(out, "scaling-patches", data, patchChart(rows));
  return 0;
}

async function measure(
  generation: Generation,
  counts: readonly number[],
  modes: readonly SyncMode[],
  splitBatch: boolean,
): Promise<Row[]> {
  const rows: Row[] = [];
  for (const rankCount of [1, ...counts]) {
    const ranks: Ranks = { rankCount, splitBatch, threadCount: rankCount };
    const session = await openRanks(generation, ranks);
    try {
      for (const mode of rankCount === 1 ? (["full_sync"] as const) : modes) {
        process.stderr.write(`${rankCount} ranks, ${mode}\n`);
        const alone = rows[0]?.computeMs;
        rows.push(await measureRow(session, generation, ranks, mode, alone));
      }
    } finally {
      await session.close();
    }
  }
  return rows;
}

/** One generated image: the CPU time of the whole process, and the counters of each rank. */
interface Sample {
  cpuMs: number;
  ranks: RankStats[];
  stepMs: number[];
}

/**
 * Several pairs of images, of which one stops after the first steps: the difference is the time of
 * the other steps, without text encoders and decoding.
 */
async function measureRow(
  session: Session,
  generation: Generation,
  { rankCount, splitBatch }: Ranks,
  mode: SyncMode,
  aloneMs: number | undefined,
): Promise<Row> {
  const how = { syncMode: mode, warmupSteps: 0, splitBatch };
  const sample = async (stepCount: number): Promise<Sample> => {
    const before = process.cpuUsage();
    const example = { prompt: generation.model.defaults.prompt ?? "a red house", seed: 42n };
    const result = await generateImage(session, generation, example, { ...how, stepCount });
    const { user, system } = process.cpuUsage(before);
    return { cpuMs: (user + system) / 1e3, ranks: result.ranks, stepMs: result.timings.stepMs };
  };
  const pairs: { short: Sample; long: Sample }[] = [];
  for (let i = 0; i < repeatCount; i++) {
    pairs.push({ short: await sample(stepsBefore), long: await sample(generation.stepCount) });
  }
  const steps = generation.stepCount - stepsBefore;
  const perStep = (of: (s: Sample) => number) =>
    medianMs(pairs.map(({ short, long }) => (of(long) - of(short)) / steps));
  const overRanks = (field: keyof RankStats, pick: (values: number[]) => number) =>
    perStep(({ ranks }) => pick(ranks.map((rank) => rank[field])));
  // From whole images: the waits of the first steps vary more than the difference sought.
  const waits = (pick: (values: number[]) => number) =>
    medianMs(
      pairs.map(({ long }) => pick(long.ranks.map(({ waitMs }) => waitMs)) / generation.stepCount),
    );
  const largest = (values: number[]) => Math.max(...values);
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

  // Other load on the machine only adds time: the minimum of each is the best estimate.
  const leastMs = (which: "short" | "long") => Math.min(...pairs.map((pair) => pair[which].cpuMs));
  const computeMs = (leastMs("long") - leastMs("short")) / steps / rankCount;
  const received: Traffic = {
    keysValues: overRanks("keysValuesBytes", largest),
    halos: overRanks("haloBytes", largest),
    statistics: overRanks("statisticsBytes", largest),
    gather: overRanks("gatherBytes", largest),
  };
  const predictedMs = Object.entries(links).map(([link, bytesPerSecond]) => {
    const synchronous = mode === "full_sync";
    return [link, stepMs({ computeMs, received, bytesPerSecond, synchronous })] as const;
  });
  return {
    ranks: rankCount,
    layout: layoutFor(generation, { rankCount, splitBatch }).text,
    mode,
    computeMs,
    waitMs: waits(mean),
    waitMsMax: waits(largest),
    wallMs: medianMs(pairs.flatMap(({ long }) => long.stepMs.slice(stepsBefore))),
    received,
    efficiency: (aloneMs ?? computeMs) / (rankCount * computeMs),
    predictedMs: Object.fromEntries(predictedMs),
  };
}

function table(rows: readonly Row[]): string {
  const linkNames = Object.keys(links);
  const heads = [
    "ranks",
    "mode",
    "compute ms",
    "eff",
    "KV kB",
    "halos kB",
    "stats kB",
    "gather kB",
    "wait ms (max)",
    "step ms here",
    ...linkNames.map((link) => `${link} ms`),
    "speed-up",
  ];
  const kilobytes = (bytes: number) => (bytes / 1e3).toFixed(1);
  const cells = rows.map((row) => [
    String(row.ranks),
    row.ranks === 1 ? "alone" : row.mode,
    row.computeMs.toFixed(2),
    row.efficiency.toFixed(2),
    kilobytes(row.received.keysValues),
    kilobytes(row.received.halos),
    kilobytes(row.received.statistics),
    kilobytes(row.received.gather),
    `${row.waitMs.toFixed(2)} (${row.waitMsMax.toFixed(2)})`,
    row.wallMs.toFixed(2),
    ...linkNames.map((link) => row.predictedMs[link]!.toFixed(2)),
    linkNames
      .map((link) => (rows[0]!.predictedMs[link]! / row.predictedMs[link]!).toFixed(2))
      .join(" / "),
  ]);
  return renderTable(heads, cells);
}

function chart(rows: readonly Row[]): TopLevelSpec {
  const kinds = { keysValues: "keys and values", halos: "halo rows", statistics: "statistics" };
  const bytes = rows.slice(1).flatMap(({ ranks, mode, received }) =>
    [...Object.entries(kinds), ["gather", "outputs"] as const].map(([kind, what]) => ({
      ranks,
      mode,
      what,
      kilobytes: received[kind as keyof Traffic] / 1e3,
    })),
  );
  const times = rows.flatMap(({ ranks, mode, predictedMs, efficiency, computeMs }) => {
    const names = ranks === 1 ? [...new Set(rows.slice(1).map((row) => row.mode))] : [mode];
    const ideal = computeMs * efficiency;
    return names.flatMap((name) => [
      { ranks, mode: name, what: "evenly shared", ms: ideal },
      ...Object.entries(predictedMs).map(([what, ms]) => ({ ranks, mode: name, what, ms })),
    ]);
  });
  const x = { field: "ranks", type: "ordinal", title: "ranks", axis: { labelAngle: 0 } } as const;
  const color = { field: "what", type: "nominal", sort: null, title: null } as const;
  const column = { field: "mode", type: "nominal", title: null, sort: null } as const;
  const size = { width: 160, height: 240 };
  return {
    resolve: { scale: { color: "independent" } },
    hconcat: [
      {
        title: "Received per rank and step, kB",
        data: { values: bytes.filter(({ kilobytes }) => Number.isFinite(kilobytes)) },
        facet: { column },
        spec: {
          ...size,
          mark: "bar",
          encoding: { x, y: { field: "kilobytes", type: "quantitative", title: null }, color },
        },
      },
      {
        title: "Predicted step, ms",
        data: { values: times },
        facet: { column },
        spec: {
          ...size,
          mark: { type: "line", point: true },
          encoding: { x, y: { field: "ms", type: "quantitative", title: null }, color },
        },
      },
    ],
  };
}
