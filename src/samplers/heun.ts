/**
 * Heun's method: an Euler step, then the mean of the derivatives at both of its ends. Two
 * evaluations per step, one in the last. Equal to k-diffusion's sample_heun without churn and to
 * diffusers' HeunDiscreteScheduler, which always ends at sigma 0.
 */
import { checkLinear } from "./clipping.ts";
import { update } from "./coefficients.ts";
import { derivativeAt, levelsOf } from "./levels.ts";
import type { Sampler, StepCoefficients } from "./types.ts";

export const heun: Sampler = {
  follows: ["sigmas", "timestepSpacing"],
  hasKForm: true,
  make(config, options) {
    checkLinear("heun", config, { thresholding: false });
    const levels = levelsOf(config, options);
    const steps: StepCoefficients[] = [];
    const evaluate = (index: number) =>
      derivativeAt(config, levels.sigmas[index]!, levels.timesteps[index]!);
    const count = levels.timesteps.length;
    for (let i = 0; i < count; i++) {
      const width = levels.sigmas[i + 1]! - levels.sigmas[i]!;
      steps.push({
        ...evaluate(i),
        latent: update({ sample: 1, modelOutputs: [width] }),
        auxiliary: update({ sample: 1 }),
      });
      if (i + 1 === count) break;
      steps.push({
        ...evaluate(i + 1),
        latent: update({ auxiliary: 1, modelOutputs: [width / 2, width / 2] }),
        auxiliary: null,
      });
    }
    const sigmas = levels.sigmas.subarray(0, -1);
    const final = levels.sigmas[count]!;
    return {
      steps,
      timesteps: Float32Array.from(steps, ({ timestep }) => timestep),
      sigmas: Float32Array.of(sigmas[0]!, ...[...sigmas.subarray(1)].flatMap((s) => [s, s]), final),
      initNoiseSigma: levels.initNoiseSigma,
    };
  },
};
