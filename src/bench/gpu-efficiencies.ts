/**
 * Efficiencies of kernels on H100 and H200 as others published them, each with its source. What has
 * none is called an estimate and says why. `bench gpu --predict` prints this table.
 */

/** All at their best, as expected, and all at their worst. */
export type Outlook = "fast" | "expected" | "slow";
export type Range = Record<Outlook, number>;

export function mapRange(of: (outlook: Outlook) => number): Range {
  return { fast: of("fast"), expected: of("expected"), slow: of("slow") };
}

export interface Efficiency extends Range {
  what: string;
  unit: "us" | "share";
  source: string;
}

export interface Product {
  m: number;
  n: number;
  k: number;
  /** Of device memory. */
  bytes: number;
}

export interface PublishedProduct extends Omit<Product, "bytes"> {
  flopsPerSecond: number;
  source: string;
}

/** Of a product's result, one for each thread block; a block fills a multiprocessor. */
export interface Tile {
  rows: number;
  columns: number;
  /** Of the rate of the largest tile. */
  share: number;
}

/**
 * Tiles that cuBLASLt names (cublasLtMatmulTile_t). A tile of a x b reads 1/a + 1/b operands per
 * result: NVIDIA's "Matrix Multiplication Background User's Guide" (DU-09799-001), section 2.3, has
 * larger tiles faster for that. How much is an estimate: 97 % for 128x128, 86 % for 64x64.
 */
export const tiles: readonly Tile[] = [
  [256, 128],
  [128, 256],
  [192, 128],
  [128, 192],
  [160, 128],
  [128, 160],
  [128, 128],
  [256, 64],
  [64, 256],
  [128, 96],
  [96, 128],
  [128, 64],
  [64, 128],
  [64, 64],
].map(([rows, columns]) => ({
  rows: rows!,
  columns: columns!,
  share: 1 / (1 + 8 * (1 / rows! + 1 / columns! - 1 / 128 - 1 / 256)),
}));

const hopperMatmul = "triton-lang/triton issue 2339 (2023)";
const matmulData = "zzc0721/torch-performance-test-data issue 79 (2025), FP16";

/**
 * cuBLAS on an H100 SXM, 16 bits, of 20 us or more: below, the time around a launch counts more
 * than the kernel's.
 */
export const publishedProducts: readonly PublishedProduct[] = [
  { m: 4224, n: 2048, k: 8192, flopsPerSecond: 780e12, source: "gist Chillee/2ec89696 (2025)" },
  { m: 2048, n: 2048, k: 2048, flopsPerSecond: 645e12, source: matmulData },
  { m: 4096, n: 4096, k: 4096, flopsPerSecond: 760e12, source: matmulData },
  { m: 8192, n: 8192, k: 8192, flopsPerSecond: 736e12, source: matmulData },
  { m: 256, n: 6144, k: 4096, flopsPerSecond: 544e12, source: "vllm pull request 17126 (2025)" },
  { m: 2048, n: 2048, k: 2048, flopsPerSecond: 515e12, source: hopperMatmul },
  { m: 2048, n: 4096, k: 4096, flopsPerSecond: 614e12, source: hopperMatmul },
  { m: 2048, n: 8192, k: 8192, flopsPerSecond: 722e12, source: hopperMatmul },
];

/**
 * FLOP/s on an H100 SXM, forward, heads of 64, not causal, 16384 tokens and 2048 channels in all:
 * "FlashAttention-3" (arXiv 2407.08608), figure 5. Waves are taken out of them and those of our own
 * shapes put in.
 */
export const attentionRates = {
  flash2: { tokens1k: 306e12, tokens4k: 321e12, blocksPerMultiprocessor: 2 },
  cudnn: { tokens1k: 373e12, tokens4k: 408e12, blocksPerMultiprocessor: 1 },
  /** Of the published shapes: 16384 tokens in rows of `queryRows`, 32 heads. */
  blocks: (16384 / 128) * 32,
  queryRows: 128,
  keyColumns: 64,
  /** Fewer keys leave no loop to hide loads behind. */
  shortKeys: 256,
};

/** Steps of SDXL's UNet at 1024x1024 with guidance in 16 bits, as others measured them. */
export const publishedSteps = [
  {
    what: "TensorRT, H100 (2023)",
    ms: 44.3,
    source: "huggingface.co/stabilityai/stable-diffusion-xl-1.0-tensorrt, commit 6bae04c",
  },
  { what: "stable-fast, H100 (2024)", ms: 46.3, source: "chengzeyi/stable-fast README" },
  { what: "torch.compile, H100 (2024)", ms: 54.1, source: "chengzeyi/stable-fast README" },
] as const;

export const efficiencies = {
  productRamp: {
    what: "product: fill and drain its pipeline",
    unit: "us",
    fast: 1.7,
    expected: 2.3,
    slow: 2.9,
    source:
      "2048x2048x2048 takes 25.4 to 26.6 us (torch-performance-test-data issue 79, BF16 and FP16), \
one wave at 790 TFLOP/s 22.4 us and the time between kernels 1.3 us",
  },
  convolution: {
    what: "convolution, of a product's rate",
    unit: "share",
    fast: 1,
    expected: 0.95,
    slow: 0.85,
    source:
      "estimate: cuDNN's sm_90 kernels are products with TMA's im2col; its rows wrap at \
the image's edge, and no figure for an H100 was found",
  },
  ownProduct: {
    what: "own products (GEGLU, queries), of cuBLASLt's rate",
    unit: "share",
    fast: 0.98,
    expected: 0.88,
    slow: 0.75,
    source:
      "estimate: wgmma 64x256x16 behind one another as in pranjalssh/fast.cu, which has 1.07 of \
cuBLAS's rate at 4096x4096x4096 on an H100, but cp.async in place of TMA and no clusters",
  },
  queriesAttention: {
    what: "attention behind the own product of its queries, of FlashAttention-2's rate",
    unit: "share",
    fast: 0.9,
    expected: 0.7,
    slow: 0.45,
    source:
      "estimate: the same instructions by as many warps, and keys and values are there before they \
are needed; but a head is one tile of keys, so the softmax overlaps other warps' products alone",
  },
  int8Product: {
    what: "own int8 product, of twice the rate of a large GEMM in 16 bits",
    unit: "share",
    fast: 0.63,
    expected: 0.52,
    slow: 0.4,
    source:
      "mma.sync reaches 62.9 % of Hopper's peak on average (arXiv 2402.13499); expected and slow \
are estimates: the tiles and copies of the kernel with GEGLU for all GPUs, never tuned",
  },
  ownAttention: {
    what: "own attention kernel, of FlashAttention-2's rate",
    unit: "share",
    fast: 1,
    expected: 0.9,
    slow: 0.75,
    source:
      "estimate: the same algorithm, mma.sync and cp.async; its machine code has no \
spills and no bank conflicts, but was never tuned on a GPU",
  },
  sdpa: {
    what: "cuDNN's SDPA, of its rate of 2024",
    unit: "share",
    fast: 1.1,
    expected: 1,
    slow: 0.9,
    source:
      "estimate: newer versions should not be slower; strides of q, k and v in one tensor \
may be",
  },
  shortAttention: {
    what: "attention with less than 256 keys, of the rate with many",
    unit: "share",
    fast: 0.7,
    expected: 0.5,
    slow: 0.35,
    source: "estimate: two tiles of keys, so loads are not hidden behind products",
  },
  memory: {
    what: "memory-bound passes, of a large copy",
    unit: "share",
    fast: 0.96,
    expected: 0.85,
    slow: 0.7,
    source:
      "cuDNN's RMSNorm 2.89 TB/s on an H100, QuACK's 3.03 (AccRL/accrl-training discussion 32 on \
Hugging Face), a copy 3.02; expected and slow are estimates: own kernels, tensors of 5 to 80 MB",
  },
  ramp: {
    what: "other kernels: first load to last store",
    unit: "us",
    fast: 0.5,
    expected: 1,
    slow: 1.5,
    source: "estimate: two latencies of device memory of some 0.6 us, partly hidden",
  },
  gap: {
    what: "between two kernels of a CUDA graph",
    unit: "us",
    fast: 1,
    expected: 1.3,
    slow: 1.5,
    source:
      'H100, 1.3 us: "Look Ma, No Bubbles!" (Hazy Research, 27 May 2025); the others estimates',
  },
  hiddenGap: {
    what: "of it hidden by programmatic dependent launch, own kernels",
    unit: "share",
    fast: 0.7,
    expected: 0.4,
    slow: 0,
    source:
      "estimate: CUDA Programming Guide 4.5 says what overlaps; XLA gained 0 to 1 % \
(openxla/xla pull request 38544)",
  },
} as const satisfies Record<string, Efficiency>;
