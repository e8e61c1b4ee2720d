/**
 * The sampler of a request: steps, noise levels and schedule from its settings and the model's
 * defaults.
 */
import { BasedXLError, escaped } from "../errors.ts";
import type { Model } from "../models/model.ts";
import { makeSchedule, type Schedule, samplerOfModel, unusedScheduleOptions } from "../schedule.ts";
import { type Scheduler, samplerNamed } from "../settings/names.ts";
import { type RequestSettings, settings } from "../settings/table.ts";
import type { Naming } from "../settings/values.ts";

type SamplingSettings = Pick<
  RequestSettings,
  "stepCount" | "scheduler" | "sigmas" | "timesteps" | "timestepSpacing" | "useKarrasSigmas" | "eta"
>;

interface Sampling {
  stepCount: number;
  scheduler: Scheduler;
  sigmas: RequestSettings["sigmas"];
  schedule: Schedule;
  warnings: string[];
}

/** Throws "bad-option" and "bad-model" for a schedule that cannot be followed. */
export function samplingOf(given: SamplingSettings, model: Model, naming: Naming): Sampling {
  const warnings: string[] = [];
  const stepCount = stepCountOf(given, model, naming);
  const named = given.scheduler === undefined ? null : samplerNamed(given.scheduler);
  const scheduler = named?.name ?? schedulerOf(model, naming, warnings);
  const sigmas = given.sigmas ?? (given.timesteps ? undefined : named?.sigmas);
  const schedule = makeSchedule(scheduler, model.scheduler, { ...given, stepCount, sigmas });
  for (const key of unusedScheduleOptions(scheduler, given)) {
    warnings.push(`${naming(key)} is not used by the scheduler ${scheduler}.`);
  }
  return { stepCount, scheduler, sigmas, schedule, warnings };
}

// --- internal ---

/** As lists of timesteps or sigmas say; these must agree with a number that is given. */
function stepCountOf(given: SamplingSettings, { defaults }: Model, naming: Naming): number {
  const { stepCount, sigmas, timesteps } = given;
  const key = timesteps ? "timesteps" : "sigmas";
  const listed = timesteps?.length ?? (typeof sigmas === "object" ? sigmas.length - 1 : undefined);
  if (listed === undefined) return stepCount ?? defaults.steps ?? 50;
  if (stepCount === undefined || stepCount === listed) return listed;
  throw new BasedXLError(
    "bad-option",
    `${naming(key)} lists ${listed} steps, but ${naming("stepCount")} is ${stepCount}: leave one \
of the two out.`,
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
