/**
 * From a sampler's name and a step count to rows of plain numbers, one per model evaluation. The
 * one device op `latent_step` runs them, so a sampler is a pure function here and never touches a
 * tensor.
 *
 * Adding a sampler: one file in `schedule/`, one line in `samplers` below, one golden test.
 */
import { BasedXLError } from "./errors.ts";
import type { SchedulerConfig } from "./models/config.ts";
import { stepCountMax } from "./native/abi.ts";
import { ddim } from "./schedule/ddim.ts";
import { euler } from "./schedule/euler.ts";
import { eulerAncestral } from "./schedule/euler-ancestral.ts";
import type { Sampler, Schedule, ScheduleOptions, StepCoefficients } from "./schedule/types.ts";
import { type Scheduler, schedulers } from "./settings/names.ts";

export type * from "./schedule/types.ts";

/** One for each name in `settings/names.ts`. */
const samplers: Readonly<Record<Scheduler, Sampler>> = { euler, euler_a: eulerAncestral, ddim };

/**
 * Makes the rows of sampler `name` for a model with scheduler `config`. Throws "bad-option" for a
 * step count out of range and for options the sampler has not, "bad-model" for configs it cannot
 * follow.
 */
export function makeSchedule(
  name: Scheduler,
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
export function schedulerNameOfClass(className: string): Scheduler | null {
  return schedulers.find((name) => samplers[name].className === className) ?? null;
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
