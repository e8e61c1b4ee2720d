/**
 * The guidance window: the steps that compute the negative branch. Of n steps those from
 * floor(start · n) on and before floor(end · n) do, as diffusers' guiders count. The others compute
 * the prompt's branch alone: their `guidanceFactor` is 0.
 */
import { BasedXLError } from "../errors.ts";
import type { Schedule } from "../schedule.ts";
import type { Naming } from "../settings/values.ts";
import type { ImageTokens } from "./image-tokens.ts";

/** Fractions of the steps. */
interface GuidanceWindow {
  guidanceStart: number;
  guidanceEnd: number;
}

/** Throws "bad-option" where no step would have guidance. */
export function withGuidanceWindow(
  schedule: Schedule,
  { guidanceStart, guidanceEnd }: GuidanceWindow,
  askedCount: number,
  naming: Naming,
): Schedule {
  // A1111's DDIM visits a timestep less than its steps.
  const stepCount = Math.min(askedCount, schedule.steps.length);
  const first = Math.floor(guidanceStart * stepCount);
  const end = Math.floor(guidanceEnd * stepCount);
  if (first === 0 && end === stepCount) return schedule;
  if (first >= end) {
    throw new BasedXLError(
      "bad-option",
      `${naming("guidanceStart")} ${guidanceStart} and ${naming("guidanceEnd")} ${guidanceEnd} \
leave none of ${stepCount} steps with guidance: ${naming("guidanceScale")} 1 is without.`,
    );
  }
  const stepOf = stepOfEvaluation(schedule, stepCount);
  const steps = schedule.steps.map((step, evaluation) => {
    const at = stepOf(evaluation);
    return at >= first && at < end ? step : { ...step, guidanceFactor: 0 };
  });
  return { ...schedule, steps };
}

/**
 * Refuses what has no meaning: rescaled guidance of a sampler whose step has a scale of its own,
 * and the mean of prompts whose weights add up to nothing.
 */
export function checkGuidance(
  images: readonly { tokens: Pick<ImageTokens, "weights"> }[],
  schedule: Schedule,
  { guidanceRescale }: { guidanceRescale: number },
  naming: Naming,
): void {
  if (guidanceRescale !== 0 && schedule.usesBothBranches) {
    const name = naming("guidanceRescale");
    throw new BasedXLError("bad-option", `${name} must be 0 with the scheduler ${schedule.name}.`);
  }
  if (guidanceRescale === 0 && !hasUnguided(schedule)) return;
  const sums = images.map(({ tokens }) => tokens.weights.reduce((sum, weight) => sum + weight, 0));
  if (sums.every((sum) => sum > 0)) return;
  const [name, start, end] = [
    naming("guidanceRescale"),
    naming("guidanceStart"),
    naming("guidanceEnd"),
  ];
  throw new BasedXLError(
    "bad-option",
    `The weights of the prompts add up to ${sums.find((sum) => sum <= 0)}, so they have no mean, \
which ${name}, ${start} and ${end} need: more than 0 is possible.`,
  );
}

/** Whether some evaluation is outside the window. */
export function hasUnguided({ steps }: Pick<Schedule, "steps">): boolean {
  return steps.some(({ guidanceFactor }) => guidanceFactor === 0);
}

/**
 * The step of an evaluation: two in turn where samplers evaluate the model twice in each step but
 * perhaps the last; else the first step has those beyond one per step (pndm). Other samplers list
 * them.
 */
export function stepOfEvaluation(
  { steps, stepOfEvaluation: listed }: Pick<Schedule, "steps" | "stepOfEvaluation">,
  stepCount: number,
): (evaluation: number) => number {
  if (listed) return (evaluation) => listed[evaluation]!;
  const evaluations = steps.length;
  const perStep = Math.max(1, Math.round(evaluations / stepCount));
  if (perStep > 1) return (evaluation) => Math.floor(evaluation / perStep);
  return (evaluation) => Math.max(0, evaluation - (evaluations - stepCount));
}
