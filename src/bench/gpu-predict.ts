/**
 * `bun run bench gpu --predict`: predicted times of a UNet step, the VAE and the text encoders, at
 * the ceilings of several GPUs and as expected of an H200, and the planned memory of a session.
 * Operations are counted by a dry run of the real graph; no GPU is needed or measured.
 */
import type { TopLevelSpec } from "vega-lite";
import type { Model } from "../models/model.ts";
import type { PlannedOperation, RankPlan } from "../native/plan.ts";
import { gpuCeilings } from "../pipeline/device-rates.ts";
import { builtKernels } from "./gpu-changes.ts";
import type { Range } from "./gpu-efficiencies.ts";
import { type Expected, type Kernels, sumExpected, whole } from "./gpu-expected.ts";
import { type ChangeRow, changesOf, expectedReport, rangeText } from "./gpu-predict-expected.ts";
import { type GpuDtype, type KindSum, kindOf, planFor, sumKinds, total } from "./gpu-work.ts";
import { renderTable, writeReport } from "./report.ts";

/** Latency between two kernels of a CUDA graph; assumed, not measured. */
export const launchMs = 0.001;

/** Limit for one rank at 1024x1024 in 16 bits, weights included. */
export const memoryBar = 9e9;

interface PredictOptions {
  model: Model;
  dtype: GpuDtype;
  sides: readonly number[];
  patches: readonly number[];
  out: string;
}

/** One patch count at one size: the rank with the most work. */
export interface Prediction {
  side: number;
  patches: number;
  rows: number;
  step: Part;
  decode: Part;
  text: Part;
  memory: Memory;
  /** Of the step. */
  changes: ChangeRow[];
}

/** Operations by kind, and the total milliseconds including launches. */
export interface Part {
  kinds: KindSum[];
  all: Omit<KindSum, "kind">;
  ms: Record<string, number>;
  /** Milliseconds of an H200, by kinds and in all. */
  expected: Record<string, Expected>;
  expectedAll: Expected;
}

/** Bytes of one rank on its own GPU. */
export interface Memory {
  weights: number;
  text: number;
  denoise: number;
  decode: number;
  exchange: number;
  arena: number;
  workspace: number;
  total: number;
}

export async function runPrediction(options: PredictOptions): Promise<number> {
  const { model, dtype, sides, patches, out } = options;
  const rows = predict(options);
  const [int8] = predict({ ...options, sides: sides.slice(0, 1), patches: [1], int8: true });
  const first = rows[0];
  if (!first) return 0;
  const names = Object.keys(gpuCeilings);
  process.stdout.write(
    `Predicted from FLOP and bytes, not run on a GPU: every operation at the ceilings of its GPU, \
each operand moved once; and as expected of an H200, with the efficiencies below.\n\n\
${ceilingTable()}\n` +
      `${titleOf(first)}, ${dtype}, both guidance branches, one UNet step:\n\n` +
      `${kindTable(first.step, names)}\n` +
      `At ceilings a launch takes ${1e3 * launchMs} us, assumed.\n\n` +
      `${expectedReport(first.changes)}\n` +
      `The same step with --dtype int8, whose linear layers of the UNet are at twice the rate:\n\n\
${int8Table(first, int8!)}\n` +
      `VAE and texts of the same image:\n\n` +
      `${partTable(first)}\n` +
      `One UNet step of one rank of several patches, both branches on each; transfers are \
\`bench scaling\`'s:\n\n${stepTable(rows)}\n` +
      `Memory of one rank, GB (1e9 bytes); bar for 1024x1024 on one rank: \
${memoryBar / 1e9}. What the driver takes for itself is not in it:\n\n${memoryTable(rows)}\n`,
  );
  const ceilings = gpuCeilings;
  const data = { model: model.name, dtype, ceilings, launchMs, sides, patches, rows, int8 };
  await writeReport(out, "gpu-predict", data, chart(rows));
  return 0;
}

export function predict(options: Omit<PredictOptions, "out"> & { int8?: boolean }) {
  const { model, dtype, sides, patches, int8 } = options;
  const kernels = builtKernels();
  return sides.flatMap((side) =>
    patches.flatMap((rankCount): Prediction[] => {
      const unit = model.sizeMultiple;
      if (side / unit < rankCount) return [];
      const plan = planFor({
        model,
        width: side,
        height: side,
        rankCount,
        splitBatch: false,
        dtype,
        int8,
      });
      const rank = busiest(plan.passes[0]!.ranks);
      return [
        {
          side,
          patches: rankCount,
          rows: rank.rows,
          step: partOf(rank.operations, "denoise", kernels),
          decode: partOf(rank.operations, "decode", kernels),
          text: partOf(rank.operations, "text", kernels),
          memory: memoryOf(plan.weight_bytes, largest(plan.passes[0]!.ranks)),
          changes: changesOf({ entries: entriesOf(rank.operations, "denoise"), kernels }),
        },
      ];
    }),
  );
}

/** The rank with the most FLOP and bytes. */
export function busiest(ranks: readonly RankPlan[]): RankPlan {
  const work = ({ operations }: RankPlan) =>
    total(sumKinds(operations, { H200: gpuCeilings.H200 })).ms.H200!;
  return ranks.reduce((most, rank) => (work(rank) > work(most) ? rank : most));
}

export function memoryOf(weights: number, rank: RankPlan): Memory {
  const { text, denoise, decode } = rank.peaks;
  const workspace = rank.workspace_bytes + rank.partial_bytes;
  return {
    weights,
    text,
    denoise,
    decode,
    exchange: rank.exchange_bytes,
    arena: rank.scratch_bytes,
    workspace,
    total: weights + rank.scratch_bytes + workspace,
  };
}

// --- internal ---

function largest(ranks: readonly RankPlan[]): RankPlan {
  return ranks.reduce((most, rank) => (rank.scratch_bytes > most.scratch_bytes ? rank : most));
}

function entriesOf(
  operations: readonly PlannedOperation[],
  stage: PlannedOperation["place"]["stage"],
) {
  return operations.filter((entry) => entry.place.stage === stage);
}

function partOf(
  operations: readonly PlannedOperation[],
  stage: PlannedOperation["place"]["stage"],
  kernels: Kernels,
): Part {
  const entries = entriesOf(operations, stage);
  const sums = sumKinds(entries, gpuCeilings);
  const all = total(sums);
  const ms = Object.entries(all.ms).map(([name, each]) => [name, each + all.launches * launchMs]);
  const expected = sums.map(({ kind }) => {
    const own = entries.filter(({ operation }) => kindOf(operation) === kind);
    return [kind, sumExpected(own, kernels)];
  });
  return {
    kinds: sums,
    all,
    ms: Object.fromEntries(ms),
    expected: Object.fromEntries(expected),
    expectedAll: sumExpected(entries, kernels),
  };
}

function titleOf({ side }: Prediction): string {
  return `${side}x${side}`;
}

function ceilingTable(): string {
  const cells = Object.entries(gpuCeilings).map(([name, { flopsPerSecond, bytesPerSecond }]) => [
    name,
    (flopsPerSecond / 1e12).toFixed(0),
    (bytesPerSecond / 1e12).toFixed(2),
  ]);
  return renderTable(["ceilings", "TFLOP/s", "TB/s"], cells);
}

function kindTable(part: Part, names: readonly string[]): string {
  const { kinds, all, ms, expected, expectedAll } = part;
  const line = (kind: string, sum: Omit<KindSum, "kind">, range: Range) => [
    kind,
    String(sum.operations),
    String(sum.launches),
    (sum.flops / 1e9).toFixed(1),
    (sum.bytes / 1e9).toFixed(3),
    ...names.map((name) => sum.ms[name]!.toFixed(2)),
    rangeText(range),
  ];
  const none = { operations: 0, launches: all.launches, flops: 0, bytes: 0 };
  const launches = Object.fromEntries(names.map((name) => [name, all.launches * launchMs]));
  const cells = [
    ...kinds.map((sum) => line(sum.kind, sum, expected[sum.kind]!.kernel)),
    line("launching", { ...none, ms: launches }, expectedAll.gaps),
    line("everything", { ...all, ms }, whole(expectedAll)),
  ];
  const heads = ["kind", "operations", "launches", "GFLOP", "GB", ...names.map((n) => `${n} ms`)];
  return renderTable([...heads, "H200 expected ms"], cells);
}

function int8Table(wide: Prediction, int8: Prediction): string {
  const names = Object.keys(gpuCeilings);
  const cells = Object.entries({ "16 bits": wide, int8 }).map(([name, { step, memory }]) => [
    name,
    String(step.all.launches),
    (step.all.bytes / 1e9).toFixed(1),
    (memory.weights / 1e9).toFixed(2),
    ...names.map((gpu) => step.ms[gpu]!.toFixed(2)),
    rangeText(whole(step.expectedAll)),
  ]);
  const heads = ["linear layers", "launches", "GB", "weights GB"];
  return renderTable([...heads, ...names.map((n) => `${n} ms`), "H200 expected ms"], cells);
}

function partTable({ decode, text }: Prediction): string {
  const names = Object.keys(gpuCeilings);
  const cells = Object.entries({ "VAE decode": decode, "both text encoders": text }).map(
    ([name, { all, ms, expectedAll }]) => [
      name,
      String(all.launches),
      (all.flops / 1e12).toFixed(2),
      (all.bytes / 1e9).toFixed(1),
      ...names.map((gpu) => ms[gpu]!.toFixed(2)),
      rangeText(whole(expectedAll)),
    ],
  );
  const heads = ["part", "launches", "TFLOP", "GB", ...names.map((n) => `${n} ms`)];
  return renderTable([...heads, "H200 expected ms"], cells);
}

function stepTable(rows: readonly Prediction[]): string {
  const names = Object.keys(gpuCeilings);
  const cells = rows.map(({ side, patches, rows: count, step }) => {
    const alone = rows.find((row) => row.side === side)!;
    return [
      `${side}x${side}`,
      String(patches),
      String(count),
      String(step.all.launches),
      (step.all.flops / 1e12).toFixed(2),
      (step.all.bytes / 1e9).toFixed(1),
      ...names.map((name) => step.ms[name]!.toFixed(2)),
      (alone.step.ms.H200! / step.ms.H200!).toFixed(2),
      rangeText(whole(step.expectedAll)),
    ];
  });
  const heads = ["size", "patches", "rows", "launches", "TFLOP", "GB"];
  return renderTable(
    [...heads, ...names.map((n) => `${n} ms`), "H200 gain", "H200 expected ms"],
    cells,
  );
}

function memoryTable(rows: readonly Prediction[]): string {
  const gigabytes = (bytes: number) => (bytes / 1e9).toFixed(2);
  const cells = rows.map(({ side, patches, memory: m }) => [
    `${side}x${side}`,
    String(patches),
    ...[m.weights, m.text, m.denoise, m.exchange, m.decode, m.arena, m.workspace, m.total].map(
      gigabytes,
    ),
    side === 1024 && patches === 1 ? (m.total <= memoryBar ? "within" : "OVER") : "",
  ]);
  const heads = ["size", "ranks", "weights", "texts", "UNet", "of it exchange", "VAE"];
  return renderTable([...heads, "arena", "workspaces", "all", "bar"], cells);
}

function chart(rows: readonly Prediction[]): TopLevelSpec {
  const values = rows.flatMap(({ side, patches, step }) =>
    step.kinds.map(({ kind, ms }) => ({
      size: `${side}x${side}`,
      patches: patches,
      kind,
      ms: ms.H200,
    })),
  );
  return {
    title: "Predicted UNet step of one rank at an H200's ceilings, ms",
    data: { values },
    facet: { column: { field: "size", type: "nominal", title: null, sort: null } },
    resolve: { scale: { y: "independent" } },
    spec: {
      height: 260,
      mark: "bar",
      encoding: {
        x: { field: "patches", type: "ordinal", axis: { labelAngle: 0 } },
        y: { field: "ms", type: "quantitative", title: "ms" },
        color: { field: "kind", type: "nominal", sort: null, title: null },
      },
    },
  };
}
