/**
 * Computes the coefficients of a sampler's steps, one set per model evaluation. The device's
 * `latent_step` applies them to the latents, so a sampler is a pure function without tensors.
 *
 * Adding a sampler: one file in `schedule/`, one line in `samplers` below, one golden test.
 */
import { BasedXLError, escaped } from "./errors.ts";
import type { SchedulerConfig } from "./models/config.ts";
import { stepCountMax } from "./native/abi.ts";
import { alphasCumprod } from "./schedule/betas.ts";
import { ddim } from "./schedule/ddim.ts";
import { euler } from "./schedule/euler.ts";
import { eulerAncestral } from "./schedule/euler-ancestral.ts";
import type { Sampler, Schedule, ScheduleOptions, StepCoefficients } from "./schedule/types.ts";
import { type Scheduler, schedulers } from "./settings/names.ts";

export type * from "./schedule/types.ts";

/** One for each name in `settings/names.ts`. */
const samplers: Readonly<Record<Scheduler, Sampler>> = { euler, euler_a: eulerAncestral, ddim };

/**
 * The schedule of sampler `name` for a model with scheduler `config`. Throws "bad-option" for a
 * step count out of range and for options that the sampler does not support, "bad-model" for
 * configs that it does not support.
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
  schedule.steps.forEach(checkFinite);
  return schedule;
}

/** The sampler that implements a diffusers class such as "EulerDiscreteScheduler", or null. */
export function schedulerNameOfClass(className: string): Scheduler | null {
  return schedulers.find((name) => samplers[name].className === className) ?? null;
}

/**
 * The default sampler of a model: the one of the class in its config, or Euler (`replaced`) for a
 * class that this version lacks but whose noise schedule Euler shares. Throws "bad-model" for other
 * classes, and for settings that Euler would ignore.
 */
export function samplerOfModel(config: SchedulerConfig): { name: Scheduler; replaced: boolean } {
  const name = schedulerNameOfClass(config.className);
  if (name !== null) return { name, replaced: false };
  const lost = replaceable.has(config.className)
    ? lostSetting(config)
    : `the scheduler ${escaped(config.className, 60)}`;
  if (lost === null) return { name: "euler", replaced: true };
  throw new BasedXLError(
    "bad-model",
    `The model's scheduler_config.json asks for ${lost}, which is not supported; to generate ` +
      `without it, name a scheduler of this version: ${schedulers.join(", ")}.`,
  );
}

// --- internal ---

/** Samplers for models trained with discrete betas, as Euler is (KarrasDiffusionSchedulers). */
const replaceable = new Set([
  "DDIMParallelScheduler",
  "DDPMParallelScheduler",
  "DDPMScheduler",
  "DEISMultistepScheduler",
  "DPMSolverMultistepScheduler",
  "DPMSolverSDEScheduler",
  "DPMSolverSinglestepScheduler",
  "HeunDiscreteScheduler",
  "KDPM2AncestralDiscreteScheduler",
  "KDPM2DiscreteScheduler",
  "LCMScheduler",
  "LMSDiscreteScheduler",
  "PNDMScheduler",
  "SASolverScheduler",
  "TCDScheduler",
  "UniPCMultistepScheduler",
]);

/** A setting of the replaced sampler that changes its images and that Euler lacks. */
function lostSetting(config: SchedulerConfig): string | null {
  const { thresholding, useLuLambdas, lambdaMinClipped } = config.unsupported;
  if (thresholding) return "thresholding";
  if (useLuLambdas) return "use_lu_lambdas";
  const last = alphasCumprod(config).at(-1)!;
  const isClipped = lambdaMinClipped > Math.log(last / (1 - last)) / 2;
  return isClipped ? `lambda_min_clipped ${lambdaMinClipped}` : null;
}

function checkFinite(step: StepCoefficients, index: number): void {
  const { timestep, inputScale, outputFromSample, outputFromModel, latent, auxiliary } = step;
  const updates = auxiliary ? [latent, auxiliary] : [latent];
  const numbers = updates.flatMap((u) => [u.sample, u.auxiliary, ...u.modelOutputs, u.noise]);
  numbers.push(timestep, inputScale, outputFromSample, outputFromModel);
  if (numbers.every(Number.isFinite)) return;
  throw new BasedXLError(
    "bad-model",
    `The model's noise schedule divides by zero at step ${index + 1} (timestep ${timestep}): ` +
      'its betas end in pure noise, which needs the prediction type "v_prediction" or "sample".',
  );
}
