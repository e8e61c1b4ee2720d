/**
 * The noise level of each training timestep, and the ways between the two.
 *
 * Source: diffusers `EulerDiscreteScheduler`.
 */
import { alphasCumprod } from "./betas.ts";
import type { SchedulerConfig } from "./config.ts";
import { logF32 } from "./log.ts";

const f32 = Math.fround;

/** Sigma of every training timestep, increasing, each operation rounded to f32. */
export function sigmaTable(config: SchedulerConfig): Float32Array {
  const alphas = alphasCumprod(config);
  // f16's smallest positive number instead of 0, as in diffusers: the first sigma stays finite.
  if (config.rescaleBetasZeroSnr) alphas[alphas.length - 1] = 2 ** -24;
  return alphas.map((alpha) => Math.sqrt(f32(f32(1 - alpha) / alpha)));
}

/** numpy.interp over indices: linear between entries, the end entries outside. */
export function interpolate(table: Float32Array, position: number): number {
  const last = table.length - 1;
  if (position <= 0) return table[0]!;
  if (position >= last) return table[last]!;
  const low = Math.floor(position);
  return (table[low + 1]! - table[low]!) * (position - low) + table[low]!;
}

/** The (fractional) training timestep with a noise level, by interpolation in log sigma. */
export function timestepOfSigma(table: Float32Array): (sigma: number) => number {
  const logTable = table.map(logF32);
  return (sigma) => {
    const logSigma = Math.log(Math.max(sigma, 1e-10));
    let low = 0;
    while (low + 1 < logTable.length && logTable[low + 1]! <= logSigma) low++;
    low = Math.min(low, logTable.length - 2);
    const lowLog = logTable[low]!;
    // The reference computes the width in f32, but not the distance.
    const width = f32(lowLog - logTable[low + 1]!);
    const weight = Math.min(Math.max((lowLog - logSigma) / width, 0), 1);
    return (1 - weight) * low + weight * (low + 1);
  };
}
