/**
 * Noise levels (sigma) of a run, for samplers whose latent is x0 + sigma·noise. Sigmas are
 * interpolated in the training table. Other spacings (`sigma-kinds.ts`) replace them; the timesteps
 * are then computed from the sigmas.
 *
 * Source: diffusers `EulerDiscreteScheduler.set_timesteps`.
 */
import { BasedXLError, escaped } from "../errors.ts";
import type { SchedulerConfig } from "../models/config.ts";
import type { SigmaKind, TimestepSpacing } from "../settings/names.ts";
import { alphasCumprod } from "./betas.ts";
import { logF32 } from "./log.ts";
import { spacedSigmas } from "./sigma-kinds.ts";
import { roundHalfEven, spacedTimesteps } from "./spacing.ts";

const f32 = Math.fround;

interface SigmaOptions {
  stepCount: number;
  spacing: TimestepSpacing;
  kind: SigmaKind;
  finalSigma: "zero" | "sigma_min";
  /** Whether timesteps of Karras' sigmas are rounded. */
  roundsKarras?: boolean;
}

/** Refuses settings of EulerDiscreteScheduler that are not supported; others ignore them. */
export function checkSigmaSettings(config: SchedulerConfig): void {
  const { interpolationType, timestepType, predictionType } = config;
  const isContinuous = timestepType === "continuous" && predictionType === "v_prediction";
  const isKnown = ["discrete", "continuous"].includes(timestepType);
  const refused = [
    interpolationType !== "linear" && `interpolation_type "${escaped(interpolationType, 60)}"`,
    (isContinuous || !isKnown) && `timestep_type "${escaped(timestepType, 60)}"`,
  ].find(Boolean);
  if (!refused) return;
  throw new BasedXLError(
    "bad-model",
    `The model's scheduler_config.json asks for ${refused}, which is not supported; ` +
      "linear interpolation with discrete timesteps is.",
  );
}

interface SigmaSchedule {
  /** `stepCount` values, decreasing. */
  timesteps: Float32Array;
  /** `stepCount` + 1 values, decreasing. */
  sigmas: Float32Array;
  initNoiseSigma: number;
}

/** Timesteps and sigmas of one run. */
export function sigmaSchedule(config: SchedulerConfig, options: SigmaOptions): SigmaSchedule {
  const { stepCount, spacing, kind } = options;
  const table = sigmaTable(config);
  // f32 before the look-up: diffusers interpolates at the rounded timestep.
  let timesteps = spacedTimesteps({ ...config, spacing, stepCount }).map(f32);
  let sigmas = timesteps.map((timestep) => interpolate(table, timestep));
  if (kind !== "normal") {
    const sigmaMin = config.sigmaMin ?? sigmas[stepCount - 1]!;
    const sigmaMax = config.sigmaMax ?? sigmas[0]!;
    sigmas = spacedSigmas(kind, sigmaMax, sigmaMin, stepCount);
    const timestepOf = timestepOfSigma(table);
    timesteps = sigmas.map(timestepOf);
    if (options.roundsKarras && kind === "karras") timesteps = timesteps.map(roundHalfEven);
  }
  const sigmaLast = options.finalSigma === "zero" ? 0 : table[0]!;
  const rounded = Float32Array.of(...sigmas, sigmaLast);
  return {
    timesteps: Float32Array.from(timesteps),
    sigmas: rounded,
    initNoiseSigma: initNoise(rounded, spacing),
  };
}

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

// --- internal ---

/**
 * diffusers' `init_noise_sigma`: "leading" does not start from pure noise, so the unit variance of
 * the data is added.
 */
function initNoise(sigmas: Float32Array, spacing: TimestepSpacing): number {
  const sigmaMax = sigmas.reduce((a, b) => Math.max(a, b), 0);
  if (spacing !== "leading") return sigmaMax;
  return f32(Math.sqrt(f32(f32(sigmaMax * sigmaMax) + 1)));
}
