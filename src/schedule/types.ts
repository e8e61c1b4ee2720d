/**
 * Types of samplers: the coefficients of each step, in the form of the device op `latent_step`.
 */
import type { SchedulerConfig } from "../models/config.ts";
import type { Scheduler, TimestepSpacing } from "../settings/names.ts";

/** Coefficients of one register's new value (see `StepCoefficients`). */
export interface Update {
  sample: number;
  auxiliary: number;
  /** Newest first. */
  modelOutputs: [number, number, number, number];
  noise: number;
}

/**
 * One step of a sampler (diffusers: `scheduler.step`) as a linear combination. x is the latent
 * (`sample`), e the model output after guidance, s the auxiliary register (`last_sample`), m_k the
 * converted model outputs (`model_outputs`), newest first, z fresh noise:
 *
 *     m_0 = outputFromSample·x + outputFromModel·e                     (`convert_model_output`)
 *     x'  = latent.sample·x + latent.auxiliary·s + sum_k latent.modelOutputs[k]·m_k
 *           + latent.noise·z
 *     s'  = the same with the coefficients `auxiliary`, or s where that is null
 *
 * x' and s' both read the old x and s. The model's input is inputScale·x (`scale_model_input`) at
 * `timestep`.
 */
export interface StepCoefficients {
  timestep: number;
  inputScale: number;
  outputFromSample: number;
  outputFromModel: number;
  latent: Update;
  auxiliary: Update | null;
  /**
   * Whether z is sampled. Ancestral samplers sample it even where its coefficient is 0: the
   * generator's state decides the noise of later steps.
   */
  samplesNoise: boolean;
}

export interface Schedule {
  name: Scheduler;
  steps: StepCoefficients[];
  /** The model's timestep input, one per step, in f32 as in the reference. */
  timesteps: Float32Array;
  /** One noise level per step and the final one; null for samplers without sigmas. */
  sigmas: Float32Array | null;
  /** Standard deviation of the first latent: standard normal noise is multiplied by it. */
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
