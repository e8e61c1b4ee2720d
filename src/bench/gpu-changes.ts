/**
 * The changes that a UNet step on a GPU is predicted with and without. What the code has is read
 * from its plan, and from its sources where a plan does not say it; the others are applied to the
 * plan's operations.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { PlannedOperation } from "../native/plan.ts";
import { repositoryRoot } from "../setup.ts";
import type { Kernels } from "./gpu-expected.ts";
import { kindOf, splitCrossAttention } from "./gpu-work.ts";

type Entries = readonly PlannedOperation[];

export interface State {
  entries: Entries;
  kernels: Kernels;
}

interface Change {
  name: string;
  isIn: (state: State) => boolean;
  /** Only called where it is not in. */
  add: (state: State) => State;
  /** Only called where it is in. */
  remove: (state: State) => State;
}

const alternativesBefore = 8;
const alternativesAfter = 24;
/** Of f16 and bf16. */
const elementBytes = 2;

/** In the order in which the review proposed them. */
export const changes: readonly Change[] = [
  {
    name: "time embedding without a pass of its own",
    isIn: ({ entries }) => !entries.some(isTimeEmbeddingPass),
    add: ({ entries, kernels }) => ({
      entries: entries.filter((entry) => !isTimeEmbeddingPass(entry)),
      kernels,
    }),
    remove: ({ entries, kernels }) => ({
      entries: [...entries, ...entries.filter(isSecondConvolution).map(timeEmbeddingPass)],
      kernels,
    }),
  },
  kernelChange("attention by cuDNN's SDPA", "sdpa", false, true),
  {
    name: "q, k, v in one product",
    isIn: ({ entries }) => entries.some(isFusedQkv),
    add: ({ entries, kernels }) => ({ entries: joinQkv(entries), kernels }),
    remove: ({ entries, kernels }) => ({
      entries: entries.flatMap((entry) =>
        isFusedQkv(entry)
          ? [withOut(entry, entry.operation.in), withOut(entry, 2 * entry.operation.in)]
          : [entry],
      ),
      kernels,
    }),
  },
  kernelChange(
    `${alternativesAfter} alternatives of a product timed, not ${alternativesBefore}`,
    "alternatives",
    alternativesBefore,
    alternativesAfter,
  ),
  {
    name: "group norms' statistics in one kernel",
    isIn: ({ entries }) => !entries.some(isTwoKernelNorm),
    add: ({ entries, kernels }) => ({ entries: withStatisticsLaunches(entries, 1), kernels }),
    remove: ({ entries, kernels }) => ({ entries: withStatisticsLaunches(entries, 2), kernels }),
  },
  {
    name: "GEGLU in its product",
    isIn: ({ entries }) => entries.some(isGatedProduct),
    add: ({ entries, kernels }) => ({ entries: fuseGeglu(entries), kernels }),
    remove: ({ entries, kernels }) => ({ entries: entries.flatMap(splitGeglu), kernels }),
  },
  {
    name: "time embeddings of all blocks in one product",
    isIn: ({ entries }) =>
      entries.some(
        (entry) => isEmbeddingProduct(entry) && entry.operation.out === embeddingWidth(entries),
      ),
    add: ({ entries, kernels }) => ({ entries: joinEmbeddings(entries), kernels }),
    remove: ({ entries, kernels }) => ({ entries: splitEmbeddings(entries), kernels }),
  },
  {
    name: "cross-attention in one kernel with its queries",
    isIn: ({ entries }) => entries.some(isCrossAttention),
    add: ({ entries, kernels }) => ({ entries: fuseQueries(entries), kernels }),
    remove: ({ entries, kernels }) => ({
      entries: entries.flatMap((entry) =>
        isCrossAttention(entry) ? splitCrossAttention(entry) : [entry],
      ),
      kernels,
    }),
  },
  kernelChange("programmatic dependent launch of own kernels", "dependentLaunches", false, true),
];

/** What `bun run build` makes of this clone. */
export function builtKernels(): Kernels {
  const cuda = join(repositoryRoot, "zig/backend/cuda");
  const text = readFileSync(join(cuda, "gemm/plan.zig"), "utf8");
  const own = /^const alternatives_max = (\d+);$/m.exec(text);
  return {
    sdpa: existsSync(join(cuda, "sdpa.zig")),
    alternatives: own ? Number(own[1]) : alternativesBefore,
    dependentLaunches: false,
  };
}

/** The state without any change, then with each added to those before it. */
export function changeRows(built: State): { name: string; isBuilt: boolean; state: State }[] {
  const before = changes.reduceRight(
    (state, change) => (change.isIn(state) ? change.remove(state) : state),
    built,
  );
  const rows = [{ name: "before them", isBuilt: true, state: before }];
  let state = before;
  for (const change of changes) {
    if (!change.isIn(state)) state = change.add(state);
    rows.push({ name: change.name, isBuilt: change.isIn(built), state });
  }
  return rows;
}

// --- internal ---

function kernelChange<K extends keyof Kernels>(
  name: string,
  key: K,
  without: Kernels[K],
  wanted: Kernels[K],
): Change {
  const withValue = (state: State, value: Kernels[K]): State => ({
    ...state,
    kernels: { ...state.kernels, [key]: value },
  });
  return {
    name,
    isIn: ({ kernels }) => kernels[key] === wanted,
    add: (state) => withValue(state, wanted),
    remove: (state) => withValue(state, without),
  };
}

function positions({ operation: o }: PlannedOperation): number {
  return o.batch * o.rows * o.width;
}

/** An epilogue of a whole image; those of one row are the time embedding's own layers. */
function isTimeEmbeddingPass(entry: PlannedOperation): boolean {
  return entry.operation.op === "epilogue" && positions(entry) > entry.operation.batch;
}

function isSecondConvolution({ operation: o }: PlannedOperation): boolean {
  return o.op === "conv2d" && o.kernel === 3 && o.residual;
}

/** Reads and writes the first convolution's result, which has the second's shape. */
function timeEmbeddingPass(entry: PlannedOperation): PlannedOperation {
  const { batch, rows, width, out } = entry.operation;
  const operation = { ...entry.operation, op: "epilogue", in: out, kernel: 1, residual: false };
  const bytes = 2 * elementBytes * batch * rows * width * out;
  return { ...entry, operation, cost: { flops: 0, bytes, launches: 1 } };
}

function isTwoKernelNorm({ operation, cost }: PlannedOperation): boolean {
  return operation.op === "group_norm_stats" && cost.launches === 2;
}

function withStatisticsLaunches(entries: Entries, launches: number): Entries {
  return entries.map((entry) =>
    entry.operation.op === "group_norm_stats"
      ? { ...entry, cost: { ...entry.cost, launches } }
      : entry,
  );
}

function isLinear({ operation: o }: PlannedOperation, factor: number): boolean {
  return o.op === "linear" && !o.bias && !o.residual && o.out === factor * o.in && o.rows > 1;
}

function isFusedQkv(entry: PlannedOperation): boolean {
  return isLinear(entry, 3);
}

/** The same product with another number of results. */
function withOut(entry: PlannedOperation, out: number): PlannedOperation {
  const m = positions(entry);
  const operation = { ...entry.operation, out };
  const bytes = elementBytes * (m * operation.in + operation.in * out + m * out);
  return { ...entry, operation, cost: { ...entry.cost, flops: 2 * m * operation.in * out, bytes } };
}

/** Keys and values are products of 2 C; as many of C to C without bias are the queries'. */
function joinQkv(entries: Entries): Entries {
  let joined = entries;
  for (const pair of entries.filter((entry) => isLinear(entry, 2))) {
    const isQuery = (entry: PlannedOperation) =>
      isLinear(entry, 1) &&
      entry.operation.in === pair.operation.in &&
      positions(entry) === positions(pair) &&
      entry.count >= pair.count;
    const query = joined.find(isQuery);
    if (!query) continue;
    joined = joined.flatMap((entry) => {
      if (entry === pair) return [withOut(pair, 3 * pair.operation.in)];
      if (entry !== query) return [entry];
      return [{ ...entry, count: entry.count - pair.count }];
    });
  }
  return joined.filter(({ count }) => count > 0);
}

function isGatedProduct({ operation }: PlannedOperation): boolean {
  return operation.op === "linear_geglu";
}

/** The product writes half as much, and nothing else is read or written. */
function fuseGeglu(entries: Entries): Entries {
  return entries
    .filter(({ operation }) => operation.op !== "geglu")
    .map((entry) => {
      const { operation, cost } = entry;
      if (operation.op !== "linear" || operation.out !== 8 * operation.in) return entry;
      const out = operation.out / 2;
      const bytes = cost.bytes - elementBytes * positions(entry) * out;
      const fused = { ...operation, op: "linear_geglu", out };
      return { ...entry, operation: fused, cost: { ...cost, bytes } };
    });
}

function splitGeglu(entry: PlannedOperation): PlannedOperation[] {
  if (!isGatedProduct(entry)) return [entry];
  const { operation, cost } = entry;
  const { out } = operation;
  const result = elementBytes * positions(entry) * out;
  const product = { ...operation, op: "linear", out: 2 * out };
  const pass = { ...operation, op: "geglu", in: 2 * out, bias: false };
  return [
    { ...entry, operation: product, cost: { ...cost, bytes: cost.bytes + result } },
    { ...entry, operation: pass, cost: { flops: 0, bytes: 3 * result, launches: 1 } },
  ];
}

function isCrossAttention({ operation }: PlannedOperation): boolean {
  return operation.op === "cross_attention";
}

/** Queries are neither written nor read. */
function fuseQueries(entries: Entries): Entries {
  let fused = entries;
  for (const attention of entries.filter(({ operation }) => operation.op === "attention")) {
    if (kindOf(attention.operation) !== "cross-attention") continue;
    const { in: channels } = attention.operation;
    const product = fused.find(
      (entry) =>
        isLinear(entry, 1) &&
        entry.operation.out === channels &&
        positions(entry) === positions(attention) &&
        entry.count >= attention.count,
    );
    if (!product) continue;
    const queryBytes = elementBytes * positions(attention) * channels;
    const { operation, cost } = attention;
    const both: PlannedOperation = {
      ...attention,
      operation: { ...operation, op: "cross_attention", in: product.operation.in },
      cost: {
        flops: product.cost.flops + cost.flops,
        bytes: product.cost.bytes + cost.bytes - 2 * queryBytes,
        launches: 1,
      },
    };
    fused = fused.flatMap((entry) => {
      if (entry === attention) return [both];
      if (entry !== product) return [entry];
      return [{ ...entry, count: entry.count - attention.count }];
    });
  }
  return fused.filter(({ count }) => count > 0);
}

/** One row for each image: the products of the time embedding, one for each residual block. */
function isEmbeddingProduct(entry: PlannedOperation): boolean {
  const { op, batch } = entry.operation;
  return op === "linear" && positions(entry) === batch;
}

/** Channels of all blocks' embeddings: every block ends in a convolution with a residual. */
function embeddingWidth(entries: Entries): number {
  return entries
    .filter(isSecondConvolution)
    .reduce((sum, { operation, count }) => sum + count * operation.out, 0);
}

/** All but those that make the embedding itself, of which each is needed by the next. */
function joinEmbeddings(entries: Entries): Entries {
  let joined = entries;
  let first: PlannedOperation | undefined;
  for (const block of entries.filter(isSecondConvolution)) {
    const found = joined.find(
      (entry) =>
        isEmbeddingProduct(entry) &&
        entry.operation.out === block.operation.out &&
        entry.count >= block.count,
    );
    if (!found) return entries;
    first ??= found;
    joined = joined.map((entry) =>
      entry === found ? { ...entry, count: entry.count - block.count } : entry,
    );
  }
  if (!first) return entries;
  const all = { ...withOut(first, embeddingWidth(entries)), count: 1 };
  return [...joined.filter(({ count }) => count > 0), all];
}

/** A product for each block. */
function splitEmbeddings(entries: Entries): Entries {
  const width = embeddingWidth(entries);
  const blocks = entries.filter(isSecondConvolution);
  return entries.flatMap((entry) => {
    if (!isEmbeddingProduct(entry) || entry.operation.out !== width) return [entry];
    return blocks.map(({ operation, count }) => ({ ...withOut(entry, operation.out), count }));
  });
}
