/**
 * What a sampler gives and takes: coefficients of each step as plain numbers, in the form that the
 * device op `latent_step` runs.
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
 * One model evaluation: x = latent, e = guided model output, s = saved register, z = fresh noise.
 * m_0 = outputFromSample·x + outputFromModel·e is pushed on the history (m_0 newest); then at once
 * x' = latent(x, s, m, z) and s' = saved(x, s, m, z), or s' = s where `saved` is null. The model
 * sees inputScale·x at `timestep`.
 */
export interface StepCoefficients {
  timestep: number;
  inputScale: number;
  outputFromSample: number;
  outputFromModel: number;
  latent: Update;
  saved: Update | null;
  /** Whether z is sampled. The reference samples it even to multiply by 0, and so must we. */
  drawsNoise: boolean;
}

export interface Schedule {
  name: Scheduler;
  rows: StepCoefficients[];
  /** What the model is told, one per row, in f32 as the reference keeps them. */
  timesteps: Float32Array;
  /** One noise level per row and the final one; null for samplers that have none. */
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

/** What a file in `schedule/` gives: the class it stands for, and how it makes rows. */
export interface Sampler {
  className: string;
  make(config: SchedulerConfig, options: ScheduleOptions): Omit<Schedule, "name">;
}
