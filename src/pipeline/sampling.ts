/**
 * The sampler of a request: steps, noise levels and schedule from its settings, the recipe that it
 * names, and the model's defaults.
 */
import { isMadeFor, type PlannedLora } from "../adapters/plan.ts";
import { type Preset, presetOf } from "../adapters/recipes.ts";
import { BasedXLError, badOption, escaped } from "../errors.ts";
import type { Model } from "../models/model.ts";
import {
  hasSigmas,
  makeSchedule,
  type Schedule,
  samplerOfModel,
  unusedScheduleOptions,
} from "../schedule.ts";
import { type Compat, compatScheduler, compatSigmas, flavourOf } from "../settings/compat.ts";
import {
  type NoiseSampler,
  type Scheduler,
  type SigmaKind,
  type SyncMode,
  samplerNamed,
} from "../settings/names.ts";
import { type RequestSettings, settings } from "../settings/table.ts";
import type { Naming } from "../settings/values.ts";
import { fewSteps } from "./reuse.ts";
import { type Cut, cutOf, endedAfter, stepsBefore } from "./strength.ts";

type SamplingKey = "recipe" | "stepCount" | "scheduler" | "sigmas" | "timesteps" | "syncMode";
type SamplingSettings = Pick<
  RequestSettings,
  | SamplingKey
  | "timestepSpacing"
  | "timestepRounding"
  | "useKarrasSigmas"
  | "firstSigma"
  | "eta"
  | "sNoise"
> & {
  compat: Compat;
  noiseSampler: NoiseSampler;
  denoisingEnd: number;
  strength?: number | undefined;
  isSecondPass?: boolean | undefined;
  denoisingStart?: number | undefined;
};

/** Steps of a schedule: those from `first` up to `end`, counted from 0. */
export interface StepSpan {
  first: number;
  end: number;
  /** All of the schedule. */
  stepCount: number;
}

interface Sampling {
  settings: Pick<RequestSettings, "sigmas" | "timesteps" | "timestepSpacing"> & {
    stepCount: number;
    scheduler: Scheduler;
    syncMode: SyncMode;
    noiseSampler: NoiseSampler;
  };
  /** Steps that are taken: fewer than are asked for with an image to start from or a refiner. */
  takenCount: number;
  span: StepSpan;
  /** Of the recipe. */
  preset: Preset | null;
  schedule: Schedule;
  warnings: string[];
}

/**
 * `given.strength` is there with an image or latents to start from, `given.denoisingStart` where
 * these have had the steps before. Throws "bad-option" and "bad-model" for a
 * schedule that cannot be followed.
 */
export function samplingOf(
  given: SamplingSettings,
  model: Model,
  rankCount: number,
  naming: Naming,
): Sampling {
  const warnings: string[] = [];
  const preset = given.recipe === undefined ? null : presetOf(given.recipe);
  const stepCount = stepCountOf(given, preset?.stepCount ?? model.defaults.steps ?? 50, naming);
  const named = given.scheduler === undefined ? null : samplerNamed(given.scheduler);
  const { compat } = given;
  const scheduler =
    named?.name ??
    preset?.scheduler ??
    compatScheduler(compat) ??
    schedulerOf(model, naming, warnings);
  const ofName = named?.sigmas;
  const asked = levelsOf(given, { stepCount, scheduler, preset, ofName });
  const levels = { ...asked, sigmas: asked.sigmas ?? sigmasOf(given, scheduler, preset) };
  const isList = given.timesteps !== undefined || typeof given.sigmas === "object";
  const whole = { ...given, flavour: flavourOf(compat), stepCount, ...levels };
  const made = (cut: Cut) => makeSchedule(scheduler, model.scheduler, { ...whole, ...cut });
  const cut = firstOf(given, stepCount, { made, isList, model, naming });
  const options = { ...whole, ...cut };
  const { schedule, takenCount } = lastOf(given, made(cut), { cut, model, naming });
  for (const key of unusedScheduleOptions(schedule, options)) {
    warnings.push(`${naming(key)} is not used by the scheduler ${scheduler}.`);
  }
  const isExact = preset !== null && rankCount > 1 && stepCount <= fewSteps;
  if (isExact && given.syncMode === undefined) {
    warnings.push(
      `${naming("syncMode")} is full_sync for the ${stepCount} steps of ${naming("recipe")} \
${preset.name}: there are too few for patches that are a step old.`,
    );
  }
  const syncMode = given.syncMode ?? (isExact ? "full_sync" : "corrected_async_gn");
  const noiseSampler = noiseSamplerOf(given, named?.noiseSampler);
  const settings = { stepCount, scheduler, ...levels, syncMode, noiseSampler };
  const span = { first: cut.firstStep, end: cut.firstStep + takenCount, stepCount: cut.stepCount };
  return { settings, takenCount, span, preset, schedule, warnings };
}

/** A warning where nothing of the request is made for its recipe. */
export function strangerWarnings(
  { preset }: Sampling,
  loras: readonly PlannedLora[],
  model: Model,
  naming: Naming,
): string[] {
  if (preset === null || isMadeFor(preset.title, loras, model)) return [];
  return [
    `${naming("recipe")} ${preset.name} is for ${preset.title}, but neither a LoRA nor the model \
is named so: others need more steps.`,
  ];
}

// --- internal ---

type Levels = Pick<Model["scheduler"], "trainTimesteps">;

/** The steps that are left out at the beginning. */
function firstOf(
  { strength, denoisingStart, compat, isSecondPass }: SamplingSettings,
  stepCount: number,
  how: { made: (cut: Cut) => Schedule; isList: boolean; model: { scheduler: Levels } } & {
    naming: Naming;
  },
): Cut {
  const all = { stepCount, firstStep: 0, startsFromImage: false };
  if (strength === undefined) return all;
  if (denoisingStart === undefined) {
    return cutOf(strength, stepCount, { compat, isSecondPass, ...how });
  }
  const { trainTimesteps } = how.model.scheduler;
  const shared = { stepCount, trainTimesteps, compat };
  const firstStep = stepsBefore(denoisingStart, how.made(all), shared);
  if (firstStep < stepCount) return { ...all, firstStep };
  throw badOption(
    `After ${denoisingStart} of the noise levels none of ${stepCount} steps is left: ask for \
${how.naming("stepCount")} above, or end before.`,
  );
}

/** The schedule up to where another model goes on. */
function lastOf(
  { denoisingEnd, denoisingStart = 0, compat }: SamplingSettings,
  schedule: Schedule,
  { cut, model, naming }: { cut: Cut; model: { scheduler: Levels }; naming: Naming },
): { schedule: Schedule; takenCount: number } {
  const stepCount = cut.stepCount - cut.firstStep;
  if (denoisingEnd === 1) return { schedule, takenCount: stepCount };
  const { trainTimesteps } = model.scheduler;
  const taken = stepsBefore(denoisingEnd, schedule, { stepCount, trainTimesteps, compat });
  if (taken > 0 && denoisingEnd > denoisingStart) {
    return { schedule: endedAfter(schedule, { stepCount, taken }), takenCount: taken };
  }
  throw badOption(
    `${naming("denoisingEnd")} ${denoisingEnd} leaves none of the ${stepCount} steps: it must be \
larger, or ${naming("stepCount")}.`,
  );
}

/** The generator that goes on in diffusers' formulas is no Brownian path of a GPU. */
function noiseSamplerOf(
  { compat, noiseSampler }: SamplingSettings,
  ofName: NoiseSampler | undefined,
): NoiseSampler {
  if (noiseSampler !== "auto" || ofName === undefined) return noiseSampler;
  return flavourOf(compat) === "diffusers" ? "auto" : ofName;
}

/** The noise levels that the tool gives a sampler where nothing else says any. */
function sigmasOf(
  { compat, timesteps, timestepSpacing, useKarrasSigmas }: SamplingSettings,
  scheduler: Scheduler,
  preset: Preset | null,
): SigmaKind | undefined {
  const isOpen = [timesteps, timestepSpacing, useKarrasSigmas, preset ?? undefined].every(
    (each) => each === undefined,
  );
  return isOpen && hasSigmas(scheduler, flavourOf(compat))
    ? compatSigmas(compat, scheduler)
    : undefined;
}

interface Named {
  stepCount: number;
  scheduler: Scheduler;
  preset: Preset | null;
  /** Those of the sampler's name, as in "DPM++ 2M Karras". */
  ofName: SigmaKind | undefined;
}

/** The noise levels that are asked for: a recipe's only where nothing else says any. */
function levelsOf(
  given: SamplingSettings,
  { stepCount, scheduler, preset, ofName }: Named,
): Pick<RequestSettings, "sigmas" | "timesteps" | "timestepSpacing"> {
  const { timesteps, timestepSpacing } = given;
  const sigmas = given.sigmas ?? (timesteps ? undefined : ofName);
  const isOpen = given.useKarrasSigmas === undefined && !sigmas && !timesteps;
  if (preset === null || !isOpen) return { sigmas, timesteps, timestepSpacing };
  const isWhole = preset.timesteps?.length === stepCount && given.scheduler === undefined;
  if (isWhole && timestepSpacing === undefined) {
    return { sigmas, timesteps: preset.timesteps, timestepSpacing };
  }
  const flavour = flavourOf(given.compat);
  if (flavour !== "diffusers" && timestepSpacing === undefined && hasSigmas(scheduler, flavour)) {
    // There "trailing" has this name.
    return { sigmas: "sgm_uniform", timesteps, timestepSpacing };
  }
  // Not the model's own sigmas: the recipe is a spacing of timesteps.
  const spacing = timestepSpacing ?? preset.timestepSpacing;
  return { sigmas: "normal", timesteps, timestepSpacing: spacing };
}

/** As lists of timesteps or sigmas say; these must agree with a number that is given. */
function stepCountOf(given: SamplingSettings, otherwise: number, naming: Naming): number {
  const { stepCount, sigmas, timesteps } = given;
  const key = timesteps ? "timesteps" : "sigmas";
  const listed = timesteps?.length ?? (typeof sigmas === "object" ? sigmas.length - 1 : undefined);
  if (listed === undefined) return stepCount ?? otherwise;
  if (stepCount === undefined || stepCount === listed) return listed;
  throw new BasedXLError(
    "bad-option",
    `${naming(key)} lists ${listed} step${listed === 1 ? "" : "s"}, but ${naming("stepCount")} is \
${stepCount}: leave one of the two out.`,
  );
}

/** The sampler named in the model's config, or Euler where this version lacks it. */
function schedulerOf({ scheduler }: Model, naming: Naming, warnings: string[]): Scheduler {
  const { name, replaced } = samplerOfModel(scheduler);
  if (!replaced) return name;
  warnings.push(
    `The model asks for ${escaped(scheduler.className, 60)}, which this version lacks: euler takes \
its place. ${naming("scheduler")} takes ${settings.scheduler.names.join(", ")}.`,
  );
  return name;
}
