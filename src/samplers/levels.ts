/**
 * Noise levels and timesteps of samplers whose latent is x = x0 + sigma·noise, in every flavour,
 * and what follows from a level for an evaluation there.
 */
import { dataMix, derivativeMix, levelOf } from "./coefficients.ts";
import type { SchedulerConfig } from "./config.ts";
import { fromStep } from "./first-step.ts";
import { type KTraits, kLevels, type Levels } from "./k-levels.ts";
import type { Flavour } from "./names.ts";
import { sigmaTable, timestepOfSigma } from "./sigma-table.ts";
import { sigmaSchedule } from "./sigmas.ts";
import type { MakeOptions } from "./types.ts";

const f32 = Math.fround;

interface Traits extends KTraits {
  /** diffusers': the level after the last step. Default: 0. */
  finalSigma?: "zero" | "sigma_min";
  /** diffusers': whether timesteps of Karras' sigmas are rounded. */
  roundsKarras?: boolean;
}

export function levelsOf(
  config: SchedulerConfig,
  options: MakeOptions,
  { finalSigma = "zero", roundsKarras = false, ...kTraits }: Traits = {},
): Levels {
  if (options.flavour !== "diffusers") return kLevels(config, options, kTraits);
  const schedule = sigmaSchedule(config, {
    stepCount: options.stepCount,
    spacing: options.timestepSpacing ?? config.timestepSpacing ?? "linspace",
    kind: options.sigmas,
    finalSigma,
    roundsKarras,
  });
  const levels = fromStep(schedule, options.firstStep);
  return { ...levels, timestepOf: timestepOfSigma(sigmaTable(config)) };
}

/** An evaluation at noise level `sigma` whose output is converted to dx/dsigma. */
export function derivativeAt(config: SchedulerConfig, sigma: number, timestep: number) {
  return { ...evaluation(sigma, timestep), ...derivativeMix(config.predictionType, sigma) };
}

/** The same with the output converted to the clean latent. */
export function denoisedAt(config: SchedulerConfig, sigma: number, timestep: number) {
  const level = levelOf(sigma);
  const { outputFromSample, outputFromModel } = dataMix(config.predictionType, level);
  return {
    ...evaluation(sigma, timestep),
    outputFromSample: outputFromSample * level.alpha,
    outputFromModel,
  };
}

/** A step to noise level `down` with noise up to `to`. */
interface AncestralStep {
  down: number;
  up: number;
}

/**
 * `eta` of the noise that there can be is fresh: 1 for all of it, 0 for none. k-diffusion computes
 * it in f32, where digits cancel, and rounds timesteps that hang on them.
 */
export function ancestralStep(
  from: number,
  to: number,
  { eta = 1, flavour }: Pick<MakeOptions, "eta" | "flavour">,
): AncestralStep {
  if (eta === 0) return { down: to, up: 0 };
  if (flavour !== "diffusers") {
    const [from2, to2] = [f32(from * from), f32(to * to)];
    const up = Math.min(to, f32(eta * f32(Math.sqrt(f32(f32(to2 * f32(from2 - to2)) / from2)))));
    return { down: f32(Math.sqrt(f32(to2 - f32(up * up)))), up };
  }
  // to² = up² + down², with up² = eta²·to²·(from² - to²) / from²; this form does not cancel.
  const up = Math.min(to, eta * (to / from) * Math.sqrt((from - to) * (from + to)));
  const down = eta === 1 ? (to * to) / from : Math.sqrt((to - up) * (to + up));
  return { down, up };
}

/** The level half way in log sigma; that of k-diffusion in f32, as above. */
export function middleOf(from: number, to: number, flavour: Flavour): number {
  if (flavour === "diffusers") return Math.sqrt(from * to);
  const [start, end] = [f32(Math.log(from)), f32(Math.log(to))];
  return f32(Math.exp(f32(start + f32(f32(end - start) / 2))));
}

// --- internal ---

function evaluation(sigma: number, timestep: number) {
  return {
    timestep: Math.fround(timestep),
    inputScale: 1 / Math.sqrt(sigma * sigma + 1),
    samplesNoise: false,
  };
}
