/**
 * Which steps are taken from an image to start from, and how much of it the first latent has.
 */
import { badOption } from "../errors.ts";
import { stepCountMax } from "../native/abi.ts";
import type { Schedule } from "../schedule.ts";
import { type Compat, flavourOf } from "../settings/compat.ts";
import type { Naming } from "../settings/values.ts";
import { stepOfEvaluation } from "./guidance-window.ts";

/** Steps of the schedule, and those left out of them at the beginning. */
export interface Cut {
  stepCount: number;
  firstStep: number;
  startsFromImage: boolean;
}

/**
 * diffusers: the last `strength` of the steps (get_timesteps). A1111: one step more
 * (setup_img2img_steps). ComfyUI, and the hires fix of A1111: as many steps as are asked for, the
 * last ones of more (KSampler set_steps); a list of noise levels stays as it is.
 */
export function cutOf(
  strength: number,
  asked: number,
  {
    compat,
    isList,
    isSecondPass = false,
    naming,
  }: { compat: Compat; isList: boolean; isSecondPass?: boolean | undefined; naming: Naming },
): Cut {
  const name = naming("strength");
  if (strength === 0) throw badOption(`${name} must be above 0: at 0 the image stays as it is.`);
  const takesAll = compat === "comfyui" || (compat === "a1111" && isSecondPass);
  if (takesAll && !isList) {
    const share = compat === "a1111" ? Math.min(strength, 0.999) : strength;
    const stepCount = share > 0.9999 ? asked : Math.trunc(asked / share);
    if (stepCount <= stepCountMax) return { stepCount, firstStep: stepCount - asked, ...fromImage };
    throw badOption(
      `${asked} steps at ${name} ${strength} are the last of ${stepCount} with ${naming("compat")} \
${compat}, more than ${stepCountMax}: ask for fewer.`,
    );
  }
  if (compat === "a1111") {
    const firstStep = asked - Math.trunc(Math.min(strength, 0.999) * asked) - 1;
    return { stepCount: asked, firstStep, ...fromImage };
  }
  const taken = Math.trunc(asked * strength);
  if (taken >= 1) return { stepCount: asked, firstStep: asked - taken, ...fromImage };
  throw badOption(
    `${name} ${strength} of ${asked} steps is none: ${name} must be at least ${1 / asked}, or \
${naming("stepCount")} more.`,
  );
}

/** Of a schedule that is shared between two models. */
interface SharedSteps {
  stepCount: number;
  trainTimesteps: number;
  compat: Compat;
}

/**
 * The steps that a run that goes on from `denoisingStart` leaves out, or that one up to
 * `denoisingEnd` takes: of A1111 (apply_refiner) and ComfyUI (start_at_step) a part of the steps,
 * of diffusers those whose timestep comes before. diffusers counts evaluations, so that with
 * samplers of two evaluations in a step its parts do not meet at one noise level; here a step is
 * never cut.
 */
export function stepsBefore(
  fraction: number,
  schedule: Pick<Schedule, "steps" | "timesteps" | "stepOfEvaluation">,
  { stepCount, trainTimesteps, compat }: SharedSteps,
): number {
  if (compat !== "diffusers") return shareOf(fraction, stepCount);
  const cutoff = roundedToEven(trainTimesteps - fraction * trainTimesteps);
  const stepOf = stepOfEvaluation(schedule, stepCount);
  const later = schedule.timesteps.findIndex((timestep) => timestep < cutoff);
  return later < 0 ? stepOf(schedule.steps.length - 1) + 1 : stepOf(later);
}

/** The fewest of the steps that are such a part of them. */
function shareOf(fraction: number, stepCount: number): number {
  let count = Math.max(0, Math.floor(fraction * stepCount) - 1);
  while (count / stepCount < fraction) count += 1;
  return count;
}

/** The first steps of a schedule. Their noise stays that of the whole one. */
export function endedAfter(
  schedule: Schedule,
  { stepCount, taken }: { stepCount: number; taken: number },
): Schedule {
  const stepOf = stepOfEvaluation(schedule, stepCount);
  const count = schedule.steps.filter((_, evaluation) => stepOf(evaluation) < taken).length;
  return {
    ...schedule,
    steps: schedule.steps.slice(0, count),
    timesteps: schedule.timesteps.slice(0, count),
    sigmas: schedule.sigmas?.slice(0, count + 1) ?? null,
    // With that of the latent after the last one.
    levels: schedule.levels.slice(0, count + 1),
    stepOfEvaluation: schedule.stepOfEvaluation?.slice(0, count),
  };
}

/** The library's terms: factors of the image's latent and of noise. */
export interface Start {
  imageScale: number;
  initNoiseSigma: number;
  samplesPosterior: boolean;
}

export function startOf(
  { initNoiseSigma, levels, startLevel = levels[0] }: Schedule,
  { strength, compat, continues }: { strength: number; compat: Compat; continues: boolean },
  hasMask: boolean,
): Start {
  const flavour = flavourOf(compat);
  // The other tools sample with numbers that no seed of the image decides: the mean is near all.
  const samplesPosterior = flavour === "diffusers";
  if (continues) return { samplesPosterior, imageScale: 1, initNoiseSigma: 0 };
  // diffusers' inpainting starts from noise alone.
  const isNew = hasMask && strength === 1 && flavour === "diffusers";
  // ComfyUI's first noise is that of an image from noise alone where the level is.
  const keepsScale = isNew || flavour === "kdiffusion";
  return {
    imageScale: isNew ? 0 : startLevel!.signal,
    initNoiseSigma: keepsScale ? initNoiseSigma : startLevel!.noise,
    samplesPosterior,
  };
}

// --- internal ---

const fromImage = { startsFromImage: true } as const;

/** Python's round. */
function roundedToEven(value: number): number {
  const below = Math.floor(value);
  if (value - below !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}
