/**
 * Computes the coefficients of a sampler's steps, one set per model evaluation. The device's
 * `latent_step` applies them to the latents, so a sampler is a pure function without tensors.
 *
 * Adding a sampler: one file in `samplers/`, one row in `settings/samplers.ts`.
 */
import { BasedXLError, escaped } from "./errors.ts";
import type { SchedulerConfig } from "./models/config.ts";
import { stepCountMax } from "./native/abi.ts";
import { completed } from "./samplers/coefficients.ts";
import { finished } from "./samplers/finish.ts";
import { noiseLevels } from "./samplers/first-step.ts";
import type { Flavour } from "./samplers/names.ts";
import type {
  NoiseLevel,
  Sampler,
  ScheduleOptions,
  SigmaChoice,
  StepCoefficients,
  Steps,
} from "./samplers/types.ts";
import { type Scheduler, type SigmaKind, schedulers } from "./settings/names.ts";
import { samplerRows } from "./settings/samplers.ts";

export type { ScheduleOptions, StepCoefficients, Update } from "./samplers/types.ts";

/** The steps of a sampler. */
export interface Schedule extends Steps {
  name: Scheduler;
  usesBothBranches: boolean;
  /** Where fresh noise comes from: the generator going on, or a Brownian path. */
  noise: "generator" | "brownian";
  /** The least and the largest noise level of that path; null where no step says of which. */
  brownianRange: [min: number, max: number] | null;
  /** Of the latent before each evaluation. */
  levels: NoiseLevel[];
}

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
  const sampler = samplerOf(name);
  const flavour = flavourOf(name, options);
  const sigmas = sigmaChoiceOf(name, config, options);
  const made = finished(sampler.make(config, { ...options, flavour, sigmas }), config, {
    ...options,
    flavour,
  });
  const { usesBothBranches = false } = made;
  // A1111's path has the levels before the first step, too.
  const hasWhole = flavour === "a1111" && options.startsFromImage === true;
  const whole = hasWhole
    ? sampler.make(config, { ...options, flavour, sigmas, firstStep: 0 })
    : made;
  const brownianRange = sampler.isBrownian ? rangeOf(whole) : null;
  const noise = brownianRange && flavour !== "diffusers" ? "brownian" : "generator";
  const levels = noiseLevels(made, config);
  const schedule: Schedule = { name, ...made, usesBothBranches, noise, brownianRange, levels };
  const count = schedule.steps.length;
  if (count > stepCountMax) {
    throw new BasedXLError(
      "bad-option",
      `${stepCount} steps of ${name} are ${count} evaluations of the model, more than ` +
        `${stepCountMax}: ask for fewer steps.`,
    );
  }
  schedule.steps.forEach((step, index) => {
    checkFinite(step, index, config);
  });
  return schedule;
}

/** Options that were given and that `schedule` does not follow. */
export function unusedScheduleOptions(
  { name, steps, sigmas }: Pick<Schedule, "name" | "steps" | "sigmas">,
  options: Omit<ScheduleOptions, "stepCount">,
): ("timestepSpacing" | "timestepRounding" | "eta" | "sNoise")[] {
  const flavour = flavourOf(name, options);
  const rounds = canFollow(name, "timestepRounding", flavour) || sigmas !== null;
  const isFollowed = {
    timestepSpacing: canFollow(name, "timestepSpacing", flavour),
    timestepRounding: rounds || options.timestepRounding === "auto",
    eta: canFollow(name, "eta", flavour),
    sNoise: steps.some(({ samplesNoise }) => samplesNoise),
  };
  const keys = Object.keys(isFollowed) as (keyof typeof isFollowed)[];
  return keys.filter((key) => options[key] !== undefined && !isFollowed[key]);
}

/** Whether sampler `name` has noise levels that can be spaced. */
export function hasSigmas(name: Scheduler, flavour: Flavour = "diffusers"): boolean {
  return canFollow(name, "sigmas", flavourOf(name, { flavour }));
}

/** Whether a sampler has timesteps of its own, as A1111's DDIM, PLMS and UniPC. */
export function isOfTimesteps(name: Scheduler, flavour: Flavour): boolean {
  return flavour === "a1111" && samplerOf(name).isOfTimesteps === true;
}

/** The sampler that implements a diffusers class such as "EulerDiscreteScheduler", or null. */
export function schedulerNameOfClass(className: string): Scheduler | null {
  return schedulers.find((name) => samplerRows[name].className === className) ?? null;
}

/**
 * The default sampler of a model: the one of the class in its config, or Euler (`replaced`) for a
 * class that this version lacks but whose noise schedule Euler shares. Throws "bad-model" for other
 * classes, and for settings that Euler would ignore.
 */
export function samplerOfModel(config: SchedulerConfig): { name: Scheduler; replaced: boolean } {
  const { className } = config;
  const name = schedulers.find(
    (each) => samplerRows[each].className === className && (samplerOf(each).isOf?.(config) ?? true),
  );
  if (name !== undefined) return { name, replaced: false };
  if (replaceable.has(className) && !config.thresholding) return { name: "euler", replaced: true };
  const lost = replaceable.has(className)
    ? "thresholding"
    : `the scheduler ${escaped(className, 60)}`;
  throw new BasedXLError(
    "bad-model",
    `The model's scheduler_config.json asks for ${lost}, which is not supported; to generate ` +
      `without it, name a scheduler of this version: ${schedulers.join(", ")}.`,
  );
}

// --- internal ---

const samplerOf = (name: Scheduler): Sampler => samplerRows[name].sampler;

/** That of diffusers where a sampler has no other. */
function flavourOf(name: Scheduler, { flavour = "diffusers" }: { flavour?: Flavour | undefined }) {
  const { hasKForm } = samplerOf(name);
  return hasKForm || isOfTimesteps(name, flavour) ? flavour : "diffusers";
}

/** In the flavours of k-diffusion every sampler follows sigmas, and none a spacing of timesteps. */
function canFollow(name: Scheduler, key: Sampler["follows"][number], flavour: Flavour): boolean {
  const isListed = samplerOf(name).follows.includes(key);
  if (flavour === "diffusers") return isListed;
  if (isOfTimesteps(name, flavour)) {
    return isListed && (key === "eta" || key === "timestepRounding");
  }
  if (key === "eta") return isListed && !(name === "ddim" && flavour === "kdiffusion");
  return key === "sigmas" || key === "timesteps";
}

/** Of the levels above 0. */
function rangeOf({ sigmas }: Steps): [number, number] | null {
  const above = [...(sigmas ?? [])].filter((sigma) => sigma > 0);
  return above.length === 0 ? null : [Math.min(...above), Math.max(...above)];
}

/** Samplers for models trained with discrete betas, as Euler is (KarrasDiffusionSchedulers). */
const replaceable = new Set([
  "DDIMParallelScheduler",
  "DDPMParallelScheduler",
  "DPMSolverSDEScheduler",
  "SASolverScheduler",
]);

/** What options ask for, else the config. */
function sigmaChoiceOf(
  name: Scheduler,
  config: SchedulerConfig,
  options: ScheduleOptions,
): SigmaChoice {
  const { sigmas, timesteps, useKarrasSigmas } = options;
  if (timesteps !== undefined) {
    checkTimesteps(name, config, options);
    return { timesteps };
  }
  const isList = typeof sigmas === "object";
  if (sigmas && useKarrasSigmas !== undefined && useKarrasSigmas !== (sigmas === "karras")) {
    throw new BasedXLError(
      "bad-option",
      `${isList ? "A list of sigmas" : `The sigmas ${sigmas}`} and ${useKarrasSigmas ? "" : "no "}\
Karras sigmas contradict each other: keep one of the two options.`,
    );
  }
  const { followsConfigSigmas = true } = samplerOf(name);
  const flavour = flavourOf(name, options);
  const follows = (key: Sampler["follows"][number]) => canFollow(name, key, flavour);
  const canDo = (kind: SigmaKind) =>
    kind === "normal" || (follows("sigmas") && (kind !== "lu" || follows("lu")));
  const asked = sigmas ?? (useKarrasSigmas ? "karras" : undefined);
  if (asked === undefined) {
    const own = config.sigmaKind;
    const isOff = useKarrasSigmas === false && own === "karras";
    const isFollowed = followsConfigSigmas && flavour === "diffusers";
    return isFollowed && !isOff && canDo(own) ? own : "normal";
  }
  if (typeof asked === "object" && follows("sigmas")) {
    checkCount("noise levels, with the final one,", asked.length, options.stepCount + 1);
    return { sigmas: asked };
  }
  if (typeof asked !== "object" && canDo(asked)) return asked;
  const others = asked === "lu" ? "dpmpp_2m and dpmpp_3m" : "euler and dpmpp_2m";
  const shown = typeof asked === "object" ? "a list of sigmas" : `sigmas ${asked}`;
  const why = follows("sigmas") ? "has sigmas of its own" : "has no sigmas";
  throw new BasedXLError(
    "bad-option",
    `The ${name} scheduler ${why}, so it cannot use ${shown}; ${others} can.`,
  );
}

/** Refuses timesteps that the sampler or the model has not, and those beside sigmas. */
function checkTimesteps(name: Scheduler, config: SchedulerConfig, options: ScheduleOptions): void {
  const { timesteps = [], sigmas, useKarrasSigmas, stepCount } = options;
  const refuse = (message: string) => new BasedXLError("bad-option", message);
  if ((sigmas ?? "normal") !== "normal" || useKarrasSigmas) {
    throw refuse("A list of timesteps decides the sigmas too: keep one of the two options.");
  }
  const flavour = flavourOf(name, options);
  if (!canFollow(name, "timesteps", flavour) && !canFollow(name, "sigmas", flavour)) {
    throw refuse(
      `The ${name} scheduler has timesteps of its own, so it cannot use a list of them; euler \
and lcm can.`,
    );
  }
  checkCount("timesteps", timesteps.length, stepCount);
  const last = config.trainTimesteps - 1;
  const outside = timesteps.find((timestep) => timestep > last);
  if (outside === undefined) return;
  throw refuse(`The timestep ${outside} is outside of the model's, which are 0 to ${last}.`);
}

function checkCount(what: string, count: number, expected: number): void {
  if (count === expected) return;
  throw new BasedXLError(
    "bad-option",
    `The list has ${count} ${what} where the steps need ${expected}: leave the number of steps \
out.`,
  );
}

function checkFinite(step: StepCoefficients, index: number, config: SchedulerConfig): void {
  const { latent, auxiliary, timestep } = step;
  const updates = auxiliary ? [latent, auxiliary] : [latent];
  const numbers = updates.flatMap((u) => [u.sample, u.auxiliary, ...u.modelOutputs, u.noise]);
  numbers.push(...Object.values(completed(step)).filter((value) => typeof value === "number"));
  if (numbers.every(Number.isFinite)) return;
  if (!config.rescaleBetasZeroSnr || config.predictionType !== "epsilon") {
    throw new BasedXLError(
      "bad-option",
      `Two steps have the same noise level at step ${index + 1} (timestep ${timestep}), or the ` +
        "last has none: ask for fewer steps, other sigmas, or another scheduler.",
    );
  }
  throw new BasedXLError(
    "bad-model",
    `The model's noise schedule divides by zero at step ${index + 1} (timestep ${timestep}): ` +
      'its betas end in pure noise, which needs the prediction type "v_prediction" or "sample".',
  );
}
