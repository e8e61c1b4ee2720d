/**
 * Durations of a job's stages, and the median of many times.
 */

/** Durations in milliseconds. */
export interface StageTimings {
  /** Merging the adapters into the weights; next to nothing where they are in use already. */
  adaptMs: number;
  textMs: number;
  /** Of the image to start from. */
  encodeMs: number;
  denoiseMs: number;
  decodeMs: number;
  /** One entry per step of every batch. */
  stepMs: number[];
}

/** The median in milliseconds; 0 for no times. */
export function medianMs(times: readonly number[]): number {
  const sorted = [...times].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? 0) + upper) / 2;
}
