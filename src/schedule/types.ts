/**
 * Types of samplers: the coefficients of each step, in the form of the device op `latent_step`.
 */
import type { SchedulerConfig } from "../models/config.ts";
import type { Scheduler, TimestepSpacing } from "../settings/names.ts";

/** Coefficients of one assignment: sample·x + saved·s + sum over k of history[k]·m_k + noise·z. */
export interface Update {
  sample: number;
  saved: number;
  history: [number, number, number, number];
  noise: number;
}

/**
 * One model evaluation: x = latent, e = guided model output, s = auxiliary latent (`saved`), z =
 * fresh noise. m_0 = outputFromSample·x + outputFromModel·e is pushed on the history of model
 * outputs (m_0 newest); then, simultaneously, x' = latent(x, s, m, z) and s' = saved(x, s, m, z),
 * or s' = s where `saved` is null. The model's input is inputScale·x at `timestep`.
 */
export interface StepCoefficients {
  timestep: number;
  inputScale: number;
  outputFromSample: number;
  outputFromModel: number;
  latent: Update;
  saved: Update | null;
  /** Whether z is sampled. The reference samples it even where its coefficient is 0. */
  drawsNoise: boolean;
}

export interface Schedule {
  name: Scheduler;
  rows: StepCoefficients[];
  /** The model's timestep input, one per row, in f32 as in the reference. */
  timesteps: Float32Array;
  /** One noise level per row and the final one; null for samplers without sigmas. */
  sigmas: Float32Array | null;
  /** The first latent is noise times this. */
  initNoiseSigma: number;
}

export interface ScheduleOptions {
  stepCount: number;
  /** Overrides the model's config when given, like `timestepSpacing`. */
  useKarrasSigmas?: boolean;
  timestepSpacing?: TimestepSpacing;
}

/** A sampler in `schedule/`: the diffusers class that it implements, and its coefficients. */
export interface Sampler {
  className: string;
  make(config: SchedulerConfig, options: ScheduleOptions): Omit<Schedule, "name">;
}
