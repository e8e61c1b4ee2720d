/**
 * Noise levels (sigma) of a run, for samplers whose latent is x0 + sigma·noise. Sigmas are
 * interpolated in the training table. Other spacings (`sigma-kinds.ts`) replace them; the timesteps
 * are then computed from the sigmas.
 *
 * Source: diffusers `EulerDiscreteScheduler.set_timesteps`.
 */
import { BasedXLError, escaped } from "../errors.ts";
import type { SchedulerConfig } from "./config.ts";
import { explicitLevels } from "./explicit-levels.ts";
import type { RangeKind, TimestepSpacing } from "./names.ts";
import { spacedSigmas } from "./sigma-kinds.ts";
import { interpolate, sigmaTable, timestepOfSigma } from "./sigma-table.ts";
import { roundHalfEven, spacedTimesteps } from "./spacing.ts";
import type { SigmaChoice } from "./types.ts";

const f32 = Math.fround;

interface SigmaOptions {
  stepCount: number;
  spacing: TimestepSpacing;
  kind: SigmaChoice;
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
  /** Decreasing. */
  timesteps: Float32Array;
  /** One more, decreasing. */
  sigmas: Float32Array;
  initNoiseSigma: number;
}

/** Timesteps and sigmas of one run. */
export function sigmaSchedule(config: SchedulerConfig, options: SigmaOptions): SigmaSchedule {
  const { stepCount, spacing, kind } = options;
  const table = sigmaTable(config);
  const explicit = explicitLevels(kind, config, table, stepCount);
  const { timesteps, sigmas } = explicit ?? spaced(config, options, table);
  const sigmaLast = explicit?.final ?? (options.finalSigma === "zero" ? 0 : table[0]!);
  const rounded = Float32Array.of(...sigmas, sigmaLast);
  return {
    timesteps: Float32Array.from(timesteps),
    sigmas: rounded,
    initNoiseSigma: initNoise(rounded, spacing),
  };
}

// --- internal ---

function spaced(config: SchedulerConfig, options: SigmaOptions, table: Float32Array) {
  const { stepCount, spacing } = options;
  // f32 before the look-up: diffusers interpolates at the rounded timestep.
  const timesteps = spacedTimesteps({ ...config, spacing, stepCount }).map(f32);
  const sigmas = timesteps.map((timestep) => interpolate(table, timestep));
  if (options.kind === "normal") return { timesteps, sigmas };
  const kind = options.kind as RangeKind;
  const sigmaMin = config.sigmaMin ?? sigmas[stepCount - 1]!;
  const sigmaMax = config.sigmaMax ?? sigmas[0]!;
  const others = spacedSigmas(kind, sigmaMax, sigmaMin, stepCount);
  const exact = others.map(timestepOfSigma(table));
  const rounds = options.roundsKarras && kind === "karras";
  return { timesteps: rounds ? exact.map(roundHalfEven) : exact, sigmas: others };
}

/**
 * diffusers' `init_noise_sigma`: "leading" does not start from pure noise, so the unit variance of
 * the data is added.
 */
function initNoise(sigmas: Float32Array, spacing: TimestepSpacing): number {
  const sigmaMax = sigmas.reduce((a, b) => Math.max(a, b), 0);
  if (spacing !== "leading") return sigmaMax;
  return f32(Math.sqrt(f32(f32(sigmaMax * sigmaMax) + 1)));
}
