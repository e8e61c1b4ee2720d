/**
 * Euler's method on the probability flow: one straight step along dx/dsigma per evaluation.
 * Model outputs are converted to derivatives. Equal to diffusers' EulerDiscreteScheduler and
 * k-diffusion's sample_euler without churn; ComfyUI's ddim is the same.
 */
import { update } from "./coefficients.ts";
import type { SchedulerConfig } from "./config.ts";
import { derivativeAt, levelsOf } from "./levels.ts";
import { checkSigmaSettings } from "./sigmas.ts";
import type { MakeOptions, Sampler, StepCoefficients, Steps } from "./types.ts";

export const euler: Sampler = {
  follows: ["sigmas", "timestepSpacing"],
  hasKForm: true,
  make(config, options) {
    checkSigmaSettings(config);
    return eulerSteps(config, options);
  },
};

export function eulerSteps(config: SchedulerConfig, options: MakeOptions): Steps {
  const levels = levelsOf(config, options, { finalSigma: config.finalSigmasType });
  const { sigmas, timesteps, initNoiseSigma } = levels;
  const steps = Array.from(timesteps, (timestep, i): StepCoefficients => {
    const sigma = sigmas[i]!;
    return {
      ...derivativeAt(config, sigma, timestep),
      latent: update({ sample: 1, modelOutputs: [sigmas[i + 1]! - sigma] }),
      auxiliary: null,
    };
  });
  return { steps, timesteps, sigmas, initNoiseSigma };
}
