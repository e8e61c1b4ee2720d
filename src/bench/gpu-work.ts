/**
 * The operations of an image on a GPU, from a dry run of the real graph: their kinds, their names,
 * and their times at given rates of GEMMs and memory.
 */

import { rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openModelFolder } from "../models/folder.ts";
import type { Model } from "../models/model.ts";
import { nativeModelOf } from "../models/native-model.ts";
import { type Operation, type Plan, type PlannedOperation, planOf } from "../native/plan.ts";
import { promptTokenCount } from "../prompt/tokenizer.ts";
import { writeFullSizeHeaders } from "./full-size.ts";

export type GpuDtype = "f16" | "bf16";
export const gpuDtypes: readonly GpuDtype[] = ["f16", "bf16"];

export const kinds = [
  "linear layers",
  "convolutions",
  "self-attention",
  "cross-attention",
  "text attention",
  "group norms",
  "layer norms",
  "GEGLU",
  "convolution inputs",
  "other elementwise",
] as const;
export type Kind = (typeof kinds)[number];

export interface Ceilings {
  /** Dense 16-bit GEMMs with f32 accumulation. */
  flopsPerSecond: number;
  /** Bytes read and written. */
  bytesPerSecond: number;
}

/** The settings of one rank's dry run. */
interface PlanWork {
  model: Model;
  width: number;
  height: number;
  rankCount: number;
  /** Whether the guidance branches are split over ranks. */
  splitBatch: boolean;
  dtype: GpuDtype;
  /** Whether the linear layers of the UNet are. */
  int8?: boolean;
}

/** Batch with guidance: two branches. */
export function planFor(work: PlanWork): Plan {
  const { model, width, height, rankCount, splitBatch, dtype, int8 = false } = work;
  return planOf({
    model: nativeModelOf(model),
    rankCount,
    threadCount: 0,
    gpu: {
      dtype,
      share: true,
      transport: "peer",
      fp16Accumulate: false,
      graphs: true,
      library: null,
      randomWeights: true,
    },
    branchCount: 2,
    latentRows: height / model.vaeFactor,
    latentWidth: width / model.vaeFactor,
    splitBatch,
    imageCount: 1,
    vaeTileLatent: 0,
    ...(int8 && { dtype: "int8" }),
  });
}

/** Runs `use` with `folder`, or with a temporary model of SDXL's size without values. */
export async function withModel<T>(
  folder: string | undefined,
  use: (model: Model) => Promise<T>,
): Promise<T> {
  if (folder !== undefined) return await use(await openModelFolder(folder));
  const made = await mkdtemp(join(tmpdir(), "basedxl-sdxl-"));
  try {
    writeFullSizeHeaders(made);
    return await use(await openModelFolder(made));
  } finally {
    rmSync(made, { recursive: true, force: true });
  }
}

export function kindOf(operation: Operation): Kind {
  switch (operation.op) {
    case "linear":
    case "linear_geglu":
      return "linear layers";
    case "conv2d":
    case "conv_direct":
      return "convolutions";
    case "attention":
      if (operation.causal) return "text attention";
      return isCross(operation) ? "cross-attention" : "self-attention";
    case "cross_attention":
      return "cross-attention";
    case "group_norm_stats":
    case "group_norm_apply":
    case "combine_statistics":
      return "group norms";
    case "layer_norm":
      return "layer norms";
    case "geglu":
      return "GEGLU";
    case "pad_input":
      return "convolution inputs";
    default:
      return "other elementwise";
  }
}

/** Whether the rate of an operation is given in FLOP instead of bytes. */
export function isProduct({ cost }: PlannedOperation): boolean {
  return cost.flops > 0;
}

/** Tensor cores multiply int8 at this times their rate in 16 bits. */
export const int8Rate = 2;

/** Milliseconds of one operation at the ceilings, without launch latency. */
export function floorMs(
  { cost, operation }: Pick<PlannedOperation, "cost" | "operation">,
  c: Ceilings,
): number {
  const rate = c.flopsPerSecond * (operation.int8 ? int8Rate : 1);
  return 1e3 * Math.max(cost.flops / rate, cost.bytes / c.bytesPerSecond);
}

export interface KindSum {
  kind: Kind;
  operations: number;
  launches: number;
  flops: number;
  bytes: number;
  /** Milliseconds by the names of `ceilings`. */
  ms: Record<string, number>;
}

/** The kinds of operations, in order. */
export function sumKinds(
  entries: readonly PlannedOperation[],
  ceilings: Readonly<Record<string, Ceilings>>,
): KindSum[] {
  const sums = new Map<Kind, KindSum>();
  for (const kind of kinds) {
    const ms = Object.fromEntries(Object.keys(ceilings).map((name) => [name, 0]));
    sums.set(kind, { kind, operations: 0, launches: 0, flops: 0, bytes: 0, ms });
  }
  for (const entry of entries) {
    const sum = sums.get(kindOf(entry.operation))!;
    sum.operations += entry.count;
    sum.launches += entry.count * entry.cost.launches;
    sum.flops += entry.count * entry.cost.flops;
    sum.bytes += entry.count * entry.cost.bytes;
    for (const [name, each] of Object.entries(ceilings)) {
      sum.ms[name]! += entry.count * floorMs(entry, each);
    }
  }
  return [...sums.values()].filter(({ operations }) => operations > 0);
}

export function total(sums: readonly KindSum[]): Omit<KindSum, "kind"> {
  const add = (of: (sum: KindSum) => number) => sums.reduce((all, sum) => all + of(sum), 0);
  const names = Object.keys(sums[0]?.ms ?? {});
  return {
    operations: add(({ operations }) => operations),
    launches: add(({ launches }) => launches),
    flops: add(({ flops }) => flops),
    bytes: add(({ bytes }) => bytes),
    ms: Object.fromEntries(names.map((name) => [name, add(({ ms }) => ms[name]!)])),
  };
}

/** Of a cross-attention: the product that makes its queries, and the attention, in two kernels. */
export function splitCrossAttention(
  entry: PlannedOperation,
): [product: PlannedOperation, attention: PlannedOperation] {
  const { operation: o, cost } = entry;
  const queries = o.batch * o.rows * o.width * o.out;
  const flops = 4 * queries * o.keys;
  const keyBytes = elementBytes * o.batch * o.keys * 2 * o.out;
  const product = { ...o, op: "linear", keys: 0, heads: 1 };
  const attention = { ...o, op: "attention", in: o.out };
  const bytes = 2 * elementBytes * queries + keyBytes;
  return [
    {
      ...entry,
      operation: product,
      cost: { flops: cost.flops - flops, bytes: cost.bytes - keyBytes, launches: 1 },
    },
    { ...entry, operation: attention, cost: { flops, bytes, launches: 1 } },
  ];
}

/** The name, such as "linear 8192 x 640 x 5120" or "attention 2 x 4096 x 4096, 10 heads of 64". */
export function nameOf(o: Operation): string {
  const positions = o.rows * o.width;
  const all = o.batch * positions;
  const side = `${o.batch} x ${o.rows}x${o.width}`;
  const inInt8 = o.int8 ? ", int8" : "";
  switch (o.op) {
    case "linear":
      return `linear ${all} x ${o.in} x ${o.out}${o.residual ? " + residual" : ""}${inInt8}`;
    case "linear_geglu":
      return `linear ${all} x ${o.in} x ${2 * o.out} + GEGLU${inInt8}`;
    case "conv2d":
    case "conv_direct": {
      const more = o.stride > 1 ? `, stride ${o.stride}` : o.residual ? " + residual" : "";
      return `${o.kernel}x${o.kernel} of ${side}, ${o.in} to ${o.out}${more}`;
    }
    case "attention": {
      const chunks = o.chunks > 1 ? ` in ${o.chunks} parts` : "";
      const heads = `${o.heads} heads of ${o.in / o.heads}`;
      return `attention ${o.batch} x ${positions} x ${o.keys}${chunks}, ${heads}`;
    }
    case "cross_attention":
      return `queries and attention ${o.batch} x ${positions} x ${o.in} x ${o.keys}, ${o.heads} \
heads of ${o.out / o.heads}`;
    case "pad_input":
      return `${o.scale > 1 ? "enlarge" : "halos"} ${side}, ${o.in}, ${o.halos} halos`;
    case "concat":
      return `concat ${side}, ${o.in} + ${o.out - o.in}`;
    default:
      return `${o.op.replaceAll("_", " ")} ${all} x ${o.in}`;
  }
}

// --- internal ---

/** Of f16 and bf16. */
const elementBytes = 2;

/** Key counts that are not multiples of four belong to the prompt, not to the image. */
function isCross({ keys, rows, width }: Operation): boolean {
  return keys % promptTokenCount === 0 && keys !== rows * width;
}
