/**
 * From a sampler's name and a step count to rows of plain numbers, one per model evaluation. The
 * one device op `latent_step` runs them, so a sampler is a pure function here and never touches a
 * tensor.
 *
 * Adding a sampler: one file in `schedule/`, one line in `samplers` below, one golden test.
 */
import { BasedXLError } from "./errors.ts";
import type { SchedulerConfig, TimestepSpacing } from "./models/config.ts";
import { ddim } from "./schedule/ddim.ts";
import { euler } from "./schedule/euler.ts";
import { eulerAncestral } from "./schedule/euler-ancestral.ts";

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
  /** Whether z is drawn. The reference draws even where it multiplies by 0, and so must we. */
  drawsNoise: boolean;
}

export interface Schedule {
  name: SchedulerName;
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

const samplers = { euler, euler_a: eulerAncestral, ddim } as const satisfies Record<
  string,
  Sampler
>;

export type SchedulerName = keyof typeof samplers;

export const schedulerNames = Object.keys(samplers) as readonly SchedulerName[];

/** The limit of every step count; a model trained on fewer timesteps has a lower one. */
export const stepCountMax = 1000;

/**
 * Makes the rows of sampler `name` for a model with scheduler `config`. Throws "bad-option" for a
 * step count out of range and for options the sampler has not, "bad-model" for configs it cannot
 * follow.
 */
export function makeSchedule(
  name: SchedulerName,
  config: SchedulerConfig,
  options: ScheduleOptions,
): Schedule {
  const limit = Math.min(stepCountMax, config.trainTimesteps);
  const { stepCount } = options;
  if (!Number.isInteger(stepCount) || stepCount < 1 || stepCount > limit) {
    throw new BasedXLError(
      "bad-option",
      `The number of steps is ${stepCount}, but it must be a whole number from 1 to ${limit}.`,
    );
  }
  const schedule = { name, ...samplers[name].make(config, options) };
  schedule.rows.forEach(checkFinite);
  return schedule;
}

/** The sampler that stands for a diffusers class such as "EulerDiscreteScheduler", or null. */
export function schedulerNameOfClass(className: string): SchedulerName | null {
  return schedulerNames.find((name) => samplers[name].className === className) ?? null;
}

// --- internal ---

function checkFinite(row: StepCoefficients, index: number): void {
  const { timestep, inputScale, outputFromSample, outputFromModel, latent, saved } = row;
  const updates = saved ? [latent, saved] : [latent];
  const numbers = updates.flatMap((u) => [u.sample, u.saved, ...u.history, u.noise]);
  numbers.push(timestep, inputScale, outputFromSample, outputFromModel);
  if (numbers.every(Number.isFinite)) return;
  throw new BasedXLError(
    "bad-model",
    `The model's noise schedule divides by zero at step ${index + 1} (timestep ${timestep}): ` +
      'its betas end in pure noise, which needs the prediction type "v_prediction" or "sample".',
  );
}
