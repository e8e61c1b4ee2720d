/**
 * Timestep spacing: the training timesteps of a run, in decreasing order. Rounds half to even, as
 * numpy does, and always returns exactly `stepCount` timesteps (diffusers' "trailing" returns one
 * more for some counts).
 *
 * Source: arXiv 2305.08891, table 2; diffusers `set_timesteps`.
 */
import { BasedXLError } from "../errors.ts";
import type { SchedulerConfig } from "./config.ts";
import type { TimestepSpacing } from "./names.ts";

interface SpacingOptions {
  spacing: TimestepSpacing;
  stepCount: number;
  /** Number of training timesteps, T. */
  trainTimesteps: number;
  /** Added to every timestep of "leading". */
  stepsOffset: number;
}

/**
 * `stepCount` timesteps in decreasing order. Only "linspace" returns fractions; "leading" may reach
 * T itself because of the offset.
 */
export function spacedTimesteps(options: SpacingOptions): number[] {
  const { spacing, stepCount, trainTimesteps, stepsOffset } = options;
  const timestepOf = (i: number): number => {
    switch (spacing) {
      case "linspace":
        return linspaceTimestep(trainTimesteps - 1, stepCount, stepCount - 1 - i);
      case "leading":
        return (stepCount - 1 - i) * Math.floor(trainTimesteps / stepCount) + stepsOffset;
      case "trailing":
        return roundHalfEven(arange(trainTimesteps, -trainTimesteps / stepCount, i)) - 1;
    }
  };
  return Array.from({ length: stepCount }, (_, i) => timestepOf(i));
}

/**
 * `stepCount` of the timesteps that a teacher's sampler visited when LCM or TCD was distilled, as
 * evenly as they go. Throws "bad-option" for more steps than the teacher's.
 */
export function teacherTimesteps(
  sampler: string,
  { solver, trainTimesteps }: SchedulerConfig,
  stepCount: number,
): number[] {
  const count = solver.originalSteps;
  if (count > trainTimesteps) {
    throw new BasedXLError(
      "bad-model",
      `The model's scheduler_config.json has original_inference_steps ${count}, more than its ` +
        `${trainTimesteps} timesteps.`,
    );
  }
  if (stepCount > count) {
    throw new BasedXLError(
      "bad-option",
      `${sampler} takes at most ${count} steps (original_inference_steps), not ${stepCount}.`,
    );
  }
  const stride = Math.floor(trainTimesteps / count);
  const step = count / stepCount;
  return Array.from({ length: stepCount }, (_, i) => (count - Math.floor(i * step)) * stride - 1);
}

/** Refuses timesteps that a look-up in the training table would miss. */
export function checkRange(
  sampler: string,
  timesteps: readonly number[],
  config: SchedulerConfig,
): void {
  const last = config.trainTimesteps - 1;
  if (timesteps.every((timestep) => timestep >= 0 && timestep <= last)) return;
  throw new BasedXLError(
    "bad-option",
    `${timesteps.length} steps with steps_offset ${config.stepsOffset} leave the timesteps 0 to ` +
      `${last} that ${sampler} can use; ask for fewer steps, or for the timestep spacing ` +
      `"trailing".`,
  );
}

/** Rounds to the nearest integer, halves to the even one. */
export function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const part = value - floor;
  if (part !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

// --- internal ---

/**
 * An element of numpy.arange: its step is the rounded difference of the first two, which decides
 * how halves round.
 */
function arange(start: number, step: number, index: number): number {
  return start + index * (start + step - start);
}

/** numpy.linspace(0, last, count)[index]; one step alone starts at 0. */
function linspaceTimestep(last: number, count: number, index: number): number {
  if (count === 1) return 0;
  return index === count - 1 ? last : index * (last / (count - 1));
}
