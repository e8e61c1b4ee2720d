/**
 * Ancestral Euler: each step goes below the next noise level, then fresh noise is added up to it.
 * Equal to k-diffusion's sample_euler_ancestral and to diffusers' EulerAncestralDiscreteScheduler,
 * which always ends at sigma 0 and reads use_karras_sigmas from no config; here the flag enables
 * it.
 */
import { update } from "./coefficients.ts";
import { ancestralStep, derivativeAt, levelsOf } from "./levels.ts";
import type { Sampler, StepCoefficients } from "./types.ts";

export const eulerAncestral: Sampler = {
  follows: ["sigmas", "timestepSpacing", "eta"],
  followsConfigSigmas: false,
  hasKForm: true,
  make(config, options) {
    const { sigmas, timesteps, initNoiseSigma } = levelsOf(config, options);
    const steps = Array.from(timesteps, (timestep, i): StepCoefficients => {
      const from = sigmas[i]!;
      const { down, up } = ancestralStep(from, sigmas[i + 1]!, options);
      return {
        ...derivativeAt(config, from, timestep),
        latent: update({ sample: 1, modelOutputs: [down - from], noise: up }),
        auxiliary: null,
        samplesNoise: true,
      };
    });
    return { steps, timesteps, sigmas, initNoiseSigma };
  },
};
