/**
 * Heun++: the mean of the derivatives at three levels of a step and the next, weighted by noise
 * level. Three evaluations per step, two in the last but one, one in the last. Equal to ComfyUI's
 * sample_heunpp2 without churn.
 */
import { update } from "./coefficients.ts";
import { derivativeAt, levelsOf } from "./levels.ts";
import type { Sampler, StepCoefficients } from "./types.ts";

export const heunpp2: Sampler = {
  follows: ["sigmas", "timestepSpacing"],
  hasKForm: true,
  make(config, options) {
    const { sigmas, timesteps, initNoiseSigma } = levelsOf(config, options);
    const steps: StepCoefficients[] = [];
    const visited: number[] = [];
    const stepOfEvaluation: number[] = [];
    const count = timesteps.length;
    const push = (index: number, step: Pick<StepCoefficients, "latent" | "auxiliary">) => {
      visited.push(sigmas[index]!);
      steps.push({ ...derivativeAt(config, sigmas[index]!, timesteps[index]!), ...step });
    };
    for (let i = 0; i < count; i++) {
      // Levels after this one that are not the final one; each is an evaluation more.
      const moreCount = Math.min(2, count - 1 - i);
      stepOfEvaluation.push(...Array<number>(1 + moreCount).fill(i));
      const width = sigmas[i + 1]! - sigmas[i]!;
      const start = update({ sample: 1, modelOutputs: [width] });
      push(i, { latent: start, auxiliary: update({ sample: 1 }) });
      if (moreCount === 0) break;
      const whole = (moreCount + 1) * sigmas[0]!;
      const later = Array.from({ length: moreCount }, (_, k) => sigmas[i + 1 + k]! / whole);
      const own = later.reduce((rest, weight) => rest - weight, 1);
      if (moreCount === 2) {
        const next = sigmas[i + 2]! - sigmas[i + 1]!;
        push(i + 1, { latent: update({ sample: 1, modelOutputs: [next] }), auxiliary: null });
      }
      const modelOutputs = [...later.toReversed(), own].map((weight) => weight * width);
      push(i + moreCount, { latent: update({ auxiliary: 1, modelOutputs }), auxiliary: null });
    }
    return {
      steps,
      timesteps: Float32Array.from(steps, ({ timestep }) => timestep),
      sigmas: Float32Array.of(...visited, sigmas[count]!),
      initNoiseSigma,
      stepOfEvaluation,
    };
  },
};
