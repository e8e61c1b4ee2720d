/**
 * How long the stages of a job took, and the middle of many times.
 */

/** Milliseconds. */
export interface StageTimings {
  textMs: number;
  denoiseMs: number;
  decodeMs: number;
  /** One entry per step of every batch. */
  stepMs: number[];
}

/** The middle of the sorted times, in milliseconds; 0 when there are none. */
export function medianMs(times: readonly number[]): number {
  const sorted = [...times].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? 0) + upper) / 2;
}
