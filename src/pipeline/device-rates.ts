/**
 * What the devices of a pipeline reach, for estimates of times: the CPU is measured, GPUs are known
 * by their names.
 */
import { cpuRates } from "../native/device-info.ts";
import type { PreparedPipeline } from "./prepare.ts";

export interface Rates {
  /** Of products. */
  flopsPerSecond: number;
  /** Read and written. */
  bytesPerSecond: number;
  /** From one operation to the next. */
  launchSeconds: number;
  /** Where they are from. */
  source: "measured" | "published";
}

/**
 * Dense 16-bit products and bytes read and written. H200: the measured rates of a large GEMM and a
 * copy. The others: the same shares of the data sheet's dense 16-bit rate and bandwidth, 80 % and
 * 90 %.
 */
export const gpuCeilings = {
  H200: { flopsPerSecond: 790e12, bytesPerSecond: 4.3e12 },
  "H100 SXM": { flopsPerSecond: 790e12, bytesPerSecond: 0.9 * 3.35e12 },
  "A100 80G": { flopsPerSecond: 0.8 * 312e12, bytesPerSecond: 0.9 * 2.04e12 },
  "RTX 4090": { flopsPerSecond: 0.8 * 165e12, bytesPerSecond: 0.9 * 1.008e12 },
} as const;

/** Null where nothing is known of the GPU. */
export function ratesOf({
  devices: { gpu, dtype },
  machine,
  threadCount,
}: Pick<PreparedPipeline, "devices" | "machine" | "threadCount">): Rates | null {
  if (gpu === null) {
    const rates = cpuRates(dtype, threadCount);
    return { ...rates, launchSeconds: cpuGap, source: "measured" };
  }
  // The emulator's speed is that of no GPU.
  if (gpu.library !== null) return null;
  const known = gpuNames.find(([pattern]) => pattern.test(machine.gpuName));
  if (known === undefined) return null;
  const { flopsPerSecond, bytesPerSecond } = gpuCeilings[known[1]];
  return {
    flopsPerSecond: reachedShare * flopsPerSecond,
    bytesPerSecond: reachedShare * bytesPerSecond,
    ...{ launchSeconds: gpuGap, source: "published" },
  };
}

// --- internal ---

/** Seconds: threads begin and end an operation together, by `bench estimate`. */
const cpuGap = 4e-6;
/** Between two kernels of a CUDA graph. */
const gpuGap = 1e-6;

/** Of the ceilings, as `bench gpu --predict` expects of a step; not measured on a GPU. */
const reachedShare = 0.75;

const gpuNames: readonly (readonly [RegExp, keyof typeof gpuCeilings])[] = [
  [/\bH200\b/, "H200"],
  [/\bH100\b.*(SXM|HBM3)/, "H100 SXM"],
  [/\bA100\b.*80/, "A100 80G"],
  [/\bRTX 4090\b/, "RTX 4090"],
];
