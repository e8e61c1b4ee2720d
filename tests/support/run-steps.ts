/**
 * A sampler's steps on a latent of 4 elements, with the model output and the noise of
 * tests/reference/make_schedules.py.
 */
import type { Schedule, Update } from "../../src/schedule.ts";

const sineOf = (input: number, timestep: number) => Math.sin(input + timestep / 1000);

/** Runs the steps in doubles, as `latent_step` is specified; the latent after each step. */
export function runSteps({ steps, initNoiseSigma }: Schedule, outputOf = sineOf): number[][] {
  let latent = noiseOf(-1).map((z) => z * initNoiseSigma);
  let auxiliary = latent.map(() => 0);
  let modelOutputs = [auxiliary, auxiliary, auxiliary, auxiliary];
  return steps.map((step, index) => {
    const output = latent.map((x) => outputOf(x * step.inputScale, step.timestep));
    const mixed = latent.map(
      (x, i) => step.outputFromSample * x + step.outputFromModel * output[i]!,
    );
    const older = step.replacesOutput ? modelOutputs.slice(1) : modelOutputs.slice(0, 3);
    modelOutputs = [mixed, ...older];
    const noise = noiseOf(index);
    const apply = (update: Update) =>
      latent.map(
        (x, i) =>
          update.sample * x +
          update.auxiliary * auxiliary[i]! +
          update.modelOutputs.reduce((sum, weight, k) => sum + weight * modelOutputs[k]![i]!, 0) +
          update.noise * noise[i]!,
      );
    const next = apply(step.latent);
    if (step.auxiliary) auxiliary = apply(step.auxiliary);
    latent = next;
    return latent;
  });
}

// --- internal ---

/** The formula of make_schedules.py. */
const noiseOf = (index: number) =>
  Array.from({ length: 4 }, (_, k) =>
    Math.fround(Math.SQRT2 * Math.sin(1 + 7.3 * k + 3.1 * (index + 1))),
  );
