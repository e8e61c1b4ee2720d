/**
 * The noise levels of a model as ComfyUI and A1111 hold them, and the ways between these and
 * timesteps: a level between two timesteps is interpolated in log sigma, in f32 as there.
 *
 * Sources: ComfyUI comfy/model_sampling.py (ModelSamplingDiscrete) and
 * comfy_extras/nodes_model_advanced.py (ModelSamplingDiscreteDistilled); k-diffusion
 * external.py (DiscreteSchedule).
 */
import { exactAlphasCumprod } from "./betas.ts";
import type { SchedulerConfig } from "./config.ts";
import type { Flavour, TimestepRounding } from "./names.ts";

const f32 = Math.fround;

export interface KModel {
  /** Rising, one per timestep, or one per timestep that LCM's teacher visits. */
  sigmas: Float32Array;
  sigmaAt(timestep: number): number;
  timestepOf(sigma: number): number;
}

interface KModelOptions {
  flavour: Flavour;
  /** ComfyUI rounds to the nearest timestep, A1111 does not. */
  rounding: TimestepRounding;
  /** Whether only the 50 timesteps of LCM's teacher count. */
  isDistilled: boolean;
}

export function kModel(config: SchedulerConfig, options: KModelOptions): KModel {
  const { flavour, rounding, isDistilled } = options;
  const stride = isDistilled ? Math.floor(config.trainTimesteps / teacherCount) : 1;
  const offset = stride - 1;
  const kept = <T extends Float32Array>(values: T) =>
    values.filter((_, i) => (values.length - 1 - i) % stride === 0 && i >= offset);
  const { sigmas, logs } = tables(config, flavour);
  const [own, ownLogs] = [kept(sigmas), kept(logs)];
  const isRounded =
    isDistilled || (rounding === "auto" ? flavour !== "a1111" : rounding !== "none");
  const placeOf = isRounded ? nearest : interpolated;
  return {
    sigmas: own,
    sigmaAt: (timestep) => sigmaAt(ownLogs, (timestep - offset) / stride),
    timestepOf: (sigma) => placeOf(ownLogs, f32(Math.log(f32(sigma)))) * stride + offset,
  };
}

// --- internal ---

const teacherCount = 50;

/** Sigma of every training timestep and its logarithm. */
function tables(config: SchedulerConfig, flavour: Flavour) {
  const exact = exactSigmas(config);
  if (flavour !== "a1111") {
    return { sigmas: Float32Array.from(exact), logs: Float32Array.from(exact, Math.log) };
  }
  // From alphas in f32, each operation rounded.
  const alphas = Float32Array.from(exact, (sigma) => 1 / (sigma * sigma + 1));
  const sigmas = alphas.map((alpha) => Math.sqrt(f32(f32(1 - alpha) / alpha)));
  return { sigmas, logs: sigmas.map(Math.log) };
}

/** In f64; with zero SNR a large last one. */
function exactSigmas(config: SchedulerConfig): Float64Array {
  const alphas = exactAlphasCumprod(config);
  if (config.rescaleBetasZeroSnr) {
    const roots = alphas.map(Math.sqrt);
    const [first, last] = [roots[0]!, roots[roots.length - 1]!];
    for (const [i, root] of roots.entries()) {
      alphas[i] = ((root - last) * (first / (first - last))) ** 2;
    }
    alphas[alphas.length - 1] = 4.8973451890853435e-8;
  }
  return alphas.map((alpha) => Math.sqrt((1 - alpha) / alpha));
}

function sigmaAt(logs: Float32Array, index: number): number {
  const place = Math.min(Math.max(index, 0), logs.length - 1);
  const low = Math.min(Math.floor(place), logs.length - 2);
  const part = f32(f32(place) - low);
  const [first, second] = [f32(1 - part) * logs[low]!, part * logs[low + 1]!];
  return f32(Math.exp(f32(f32(first) + f32(second))));
}

/** The first of the nearest. */
function nearest(logs: Float32Array, log: number): number {
  const distances = logs.map((each) => Math.abs(log - each));
  return distances.indexOf(distances.reduce((a, b) => Math.min(a, b)));
}

function interpolated(logs: Float32Array, log: number): number {
  const above = logs.findIndex((each) => each > log);
  const low = Math.min(above < 0 ? logs.length : Math.max(above - 1, 0), logs.length - 2);
  const width = f32(logs[low]! - logs[low + 1]!);
  const weight = Math.min(Math.max(f32(f32(logs[low]! - log) / width), 0), 1);
  return f32(f32(f32(1 - weight) * low) + f32(weight * (low + 1)));
}
