/**
 * Gradient estimation: Euler's method whose derivative goes on by its own last change (gamma 2).
 * Equal to ComfyUI's sample_gradient_estimation.
 *
 * Source: openreview.net o2ND9v0CeK.
 */
import { update } from "./coefficients.ts";
import { derivativeAt, levelsOf } from "./levels.ts";
import type { Sampler, StepCoefficients } from "./types.ts";

const gamma = 2;

export const gradientEstimation: Sampler = {
  follows: ["sigmas", "timestepSpacing"],
  hasKForm: true,
  make(config, options) {
    const { sigmas, timesteps, initNoiseSigma } = levelsOf(config, options);
    const steps = Array.from(timesteps, (timestep, i): StepCoefficients => {
      const width = sigmas[i + 1]! - sigmas[i]!;
      const goesOn = i > 0 && sigmas[i + 1]! > 0;
      const modelOutputs = goesOn ? [gamma * width, (1 - gamma) * width] : [width];
      return {
        ...derivativeAt(config, sigmas[i]!, timestep),
        latent: update({ sample: 1, modelOutputs }),
        auxiliary: null,
      };
    });
    return { steps, timesteps, sigmas, initNoiseSigma };
  },
};
