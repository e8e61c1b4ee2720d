/**
 * Expected times of operations on an H200: ceilings times efficiencies, each with its source, and
 * waves of thread blocks on the multiprocessors. A range, since nothing of it was run: all
 * efficiencies at their best, as expected, and at their worst at once.
 */
import type { Operation, PlannedOperation } from "../native/plan.ts";
import {
  attentionRates,
  efficiencies,
  mapRange,
  type Outlook,
  type Product,
  type PublishedProduct,
  publishedProducts,
  type Range,
  type Tile,
  tiles,
} from "./gpu-efficiencies.ts";
import { type Ceilings, int8Rate, splitCrossAttention } from "./gpu-work.ts";

/** What a plan does not say of the code that runs it. */
export interface Kernels {
  /** Whether attention is cuDNN's. */
  sdpa: boolean;
  /** Algorithms that cuBLASLt's heuristics propose and that are timed. */
  alternatives: number;
  /** Whether own kernels begin while the one before ends. */
  dependentLaunches: boolean;
}

export interface Gpu extends Ceilings {
  multiprocessors: number;
}

/** 790 TFLOP/s and 4.30 TB/s: a large GEMM and a large copy as measured elsewhere. */
export const h200: Gpu = { flopsPerSecond: 790e12, bytesPerSecond: 4.3e12, multiprocessors: 132 };
/** Of the published figures; a copy of 3.02 TB/s. */
const h100: Gpu = { ...h200, bytesPerSecond: 3.02e12 };

/** More alternatives than this reach tiles whose sides are no powers of two. */
const fewAlternatives = 8;
/** Of f16 and bf16. */
const elementBytes = 2;
/** Larger heads are two products around a softmax. */
const headSizeMax = 128;

export interface Expected {
  kernel: Range;
  /** Between its kernels and those before them. */
  gaps: Range;
}

/** Milliseconds of one operation. */
export function expectedMs(entry: PlannedOperation, kernels: Kernels, gpu = h200): Expected {
  const gap = (outlook: Outlook) => gapMs(entry.operation, kernels, outlook);
  return {
    kernel: mapRange((outlook) => kernelMs(entry, kernels, gpu, outlook)),
    gaps: mapRange((outlook) => entry.cost.launches * gap(outlook)),
  };
}

/** Milliseconds of all. */
export function sumExpected(entries: readonly PlannedOperation[], kernels: Kernels): Expected {
  const each = entries.map((entry) => ({ ms: expectedMs(entry, kernels), count: entry.count }));
  const sumOf = (part: keyof Expected) =>
    mapRange((outlook) => each.reduce((sum, { ms, count }) => sum + count * ms[part][outlook], 0));
  return { kernel: sumOf("kernel"), gaps: sumOf("gaps") };
}

export function whole({ kernel, gaps }: Expected): Range {
  return mapRange((outlook) => kernel[outlook] + gaps[outlook]);
}

/** The published rate of a product over the model's: 1 where the model is right. */
export function productRatio({ m, n, k, flopsPerSecond }: PublishedProduct): number {
  const bytes = 2 * (m * k + k * n + m * n);
  const kernel = productMs({ m, n, k, bytes }, tiles, h100, 1, "expected");
  const ms = kernel + efficiencies.gap.expected / 1e3;
  return flopsPerSecond / ((2 * m * n * k) / (ms / 1e3));
}

/** Share of all places for blocks that work, over the waves that `blocks` need. */
export function waveShare(blocks: number, places: number): number {
  return blocks / (Math.ceil(blocks / places) * places);
}

/** Of the model's rate: the geometric mean of the published products, the largest, the smallest. */
export function productShare(outlook: Outlook): number {
  const ratios = publishedProducts.map(productRatio);
  const logs = ratios.reduce((sum, ratio) => sum + Math.log(ratio), 0);
  switch (outlook) {
    case "fast":
      return Math.min(1, Math.max(...ratios));
    case "expected":
      return Math.min(1, Math.exp(logs / ratios.length));
    case "slow":
      return Math.min(...ratios);
  }
}

// --- internal ---

function kernelMs(entry: PlannedOperation, kernels: Kernels, gpu: Gpu, outlook: Outlook): number {
  const { operation: o, cost } = entry;
  if (o.int8) return int8ProductMs(entry, gpu, outlook);
  switch (o.op) {
    case "linear": {
      const product = { m: o.batch * o.rows * o.width, n: o.out, k: o.in, bytes: cost.bytes };
      return productMs(product, tilesOf(kernels, outlook), gpu, productShare(outlook), outlook);
    }
    case "linear_geglu":
      return gatedProductMs(entry, kernels, gpu, outlook);
    case "conv2d": {
      const side = (size: number) => Math.floor((size + 2 * o.padding - o.kernel) / o.stride) + 1;
      const m = o.batch * side(o.rows) * side(o.width);
      const product = { m, n: o.out, k: o.in * o.kernel ** 2, bytes: cost.bytes };
      const share = productShare(outlook) * efficiencies.convolution[outlook];
      return productMs(product, outlook === "fast" ? tiles : squareTiles, gpu, share, outlook);
    }
    case "attention":
      return attentionMs(entry, kernels, gpu, outlook);
    case "cross_attention":
      return crossAttentionMs(entry, kernels, gpu, outlook);
    default:
      return (
        memoryMs(cost.bytes, gpu, outlook) + (cost.launches * efficiencies.ramp[outlook]) / 1e3
      );
  }
}

function memoryMs(bytes: number, gpu: Gpu, outlook: Outlook): number {
  return (1e3 * bytes) / (gpu.bytesPerSecond * efficiencies.memory[outlook]);
}

/** Of the own product with GEGLU. */
const ownTiles = tiles.filter(({ rows, columns }) => rows === 128 && columns === 256);

/** Of linear_int8.cu; two blocks share a multiprocessor, as one of twice the rows would. */
const int8Tiles: readonly Tile[] = [{ rows: 128, columns: 128, share: 1 }];

const squareTiles = tiles.filter(({ rows, columns }) => isPower(rows) && isPower(columns));

function isPower(size: number): boolean {
  return Number.isInteger(Math.log2(size));
}

/** Whether more alternatives reach better tiles is an estimate: yes, as expected, or never. */
function tilesOf({ alternatives }: Kernels, outlook: Outlook): readonly Tile[] {
  if (outlook === "fast") return tiles;
  return outlook === "expected" && alternatives > fewAlternatives ? tiles : squareTiles;
}

/** The best tile's waves, or the memory's time, and the time to fill and drain the pipeline. */
function productMs(
  { m, n, k, bytes }: Product,
  allowed: readonly Tile[],
  gpu: Gpu,
  share: number,
  outlook: Outlook,
): number {
  const perSecond = gpu.flopsPerSecond / gpu.multiprocessors;
  const times = allowed.map(({ rows, columns, share: own }) => {
    const waves = Math.ceil((Math.ceil(m / rows) * Math.ceil(n / columns)) / gpu.multiprocessors);
    return (1e3 * waves * 2 * rows * columns * k) / (perSecond * own * share);
  });
  const busy = Math.max(Math.min(...times), memoryMs(bytes, gpu, outlook));
  return busy + efficiencies.productRamp[outlook] / 1e3;
}

/** The faster of the own kernel and of cuBLASLt with a pass behind it: both are timed. */
function gatedProductMs(
  { operation: o, cost }: PlannedOperation,
  kernels: Kernels,
  gpu: Gpu,
  outlook: Outlook,
): number {
  const product = { m: o.batch * o.rows * o.width, n: 2 * o.out, k: o.in, bytes: cost.bytes };
  const share = productShare(outlook);
  const ownShare = share * efficiencies.ownProduct[outlook];
  const own = productMs(product, ownTiles, gpu, ownShare, outlook);
  // The product writes twice the result, which the pass reads.
  const result = elementBytes * product.m * o.out;
  const wide = { ...product, bytes: cost.bytes + result };
  const library = productMs(wide, tilesOf(kernels, outlook), gpu, share, outlook);
  const pass = memoryMs(3 * result, gpu, outlook) + efficiencies.ramp[outlook] / 1e3;
  return Math.min(own, library + pass + efficiencies.gap[outlook] / 1e3);
}

/** By the own kernel; where cuBLASLt with a pass behind it is faster, it is taken. */
function int8ProductMs(
  { operation: o, cost }: PlannedOperation,
  gpu: Gpu,
  outlook: Outlook,
): number {
  const n = o.op === "linear_geglu" ? 2 * o.out : o.out;
  const product = { m: o.batch * o.rows * o.width, n, k: o.in, bytes: cost.bytes };
  const integers = { ...gpu, flopsPerSecond: int8Rate * gpu.flopsPerSecond };
  return productMs(product, int8Tiles, integers, efficiencies.int8Product[outlook], outlook);
}

function attentionMs(
  { operation: o, cost }: PlannedOperation,
  { sdpa }: Kernels,
  gpu: Gpu,
  outlook: Outlook,
): number {
  const headSize = o.in / o.heads;
  const ramps = (cost.launches * efficiencies.ramp[outlook]) / 1e3;
  const memory = memoryMs(cost.bytes, gpu, outlook);
  if (headSize > headSizeMax) {
    const product = (1e3 * cost.flops) / (gpu.flopsPerSecond * productShare(outlook));
    return Math.max(product, memory) + ramps;
  }
  const isSdpa = sdpa && !o.causal;
  const kind = isSdpa ? attentionRates.cudnn : attentionRates.flash2;
  const { tokens1k, tokens4k, blocksPerMultiprocessor: places } = kind;
  const published = o.keys < 2048 ? tokens1k : tokens4k;
  const bare = published / waveShare(attentionRates.blocks, places * gpu.multiprocessors);
  const blocks = o.batch * o.heads * Math.ceil((o.rows * o.width) / attentionRates.queryRows);
  const rate =
    bare *
    attentionShare(blocks, places, gpu, outlook) *
    (isSdpa ? efficiencies.sdpa : efficiencies.ownAttention)[outlook];
  const keys = Math.ceil(o.keys / attentionRates.keyColumns) * attentionRates.keyColumns;
  const isShort = o.keys < attentionRates.shortKeys;
  const flops = (cost.flops * keys) / o.keys;
  const compute = (1e3 * flops) / (rate * (isShort ? efficiencies.shortAttention[outlook] : 1));
  return Math.max(compute, memory) + ramps;
}

/** Of cuda/cross_attention.cu: rows, columns of three heads, and keys of a tile. */
const crossTile = { rows: 128, columns: 192, headSize: 64, keys: 80 };

/** The faster of the own kernel and of cuBLASLt with attention behind it: both are timed. */
function crossAttentionMs(
  entry: PlannedOperation,
  kernels: Kernels,
  gpu: Gpu,
  outlook: Outlook,
): number {
  const { operation: o, cost } = entry;
  const { rows, columns, headSize, keys } = crossTile;
  const parts = splitCrossAttention(entry);
  const library =
    parts.reduce((sum, part) => sum + kernelMs(part, kernels, gpu, outlook), 0) +
    efficiencies.gap[outlook] / 1e3;
  if (o.out / o.heads !== headSize) return library;
  const rowTiles = o.batch * Math.ceil((o.rows * o.width) / rows);
  const blocks = rowTiles * Math.ceil(o.out / columns);
  const tile = tiles.find((each) => each.rows === rows && each.columns === columns)!;
  const { flash2, blocks: published } = attentionRates;
  const places = flash2.blocksPerMultiprocessor * gpu.multiprocessors;
  const rates = {
    product:
      gpu.flopsPerSecond * tile.share * productShare(outlook) * efficiencies.ownProduct[outlook],
    attention:
      (flash2.tokens1k / waveShare(published, places)) * efficiencies.queriesAttention[outlook],
  };
  const keyCount = Math.ceil(o.keys / keys) * keys;
  const seconds =
    (2 * rows * columns * o.in) / rates.product + (4 * rows * columns * keyCount) / rates.attention;
  const waves = Math.ceil(blocks / gpu.multiprocessors);
  const busy = Math.max(
    1e3 * waves * seconds * gpu.multiprocessors,
    memoryMs(cost.bytes, gpu, outlook),
  );
  return Math.min(library, busy + efficiencies.productRamp[outlook] / 1e3);
}

/**
 * A block that has a multiprocessor to itself may be slower than half of two, or as fast as both:
 * at worst a wave of all places counts, at best a multiprocessor's share of the blocks.
 */
function attentionShare(blocks: number, places: number, gpu: Gpu, outlook: Outlook): number {
  const worst = waveShare(blocks, places * gpu.multiprocessors);
  const best = waveShare(blocks, gpu.multiprocessors);
  return { fast: best, expected: (worst + best) / 2, slow: worst }[outlook];
}

/** Libraries' kernels begin when the one before has ended. */
function gapMs(operation: Operation, kernels: Kernels, outlook: Outlook): number {
  const { op, in: inner, heads, int8 } = operation;
  const isLibrary =
    (op === "linear" && !int8) ||
    op === "conv2d" ||
    (op === "attention" && (kernels.sdpa || inner / heads > headSizeMax));
  const hidden = kernels.dependentLaunches && !isLibrary ? efficiencies.hiddenGap[outlook] : 0;
  return (efficiencies.gap[outlook] * (1 - hidden)) / 1e3;
}
