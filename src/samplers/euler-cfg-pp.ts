/**
 * CFG++: Euler's method that goes to the guided prediction and away from it along the noise of the
 * negative branch, without fresh noise or with (ancestral). Equal to ComfyUI's sample_euler_cfg_pp
 * and its ancestral one.
 *
 * x' = x0_guided + sigma'·e_negative, which is x + (sigma' - sigma)·e with a guidance scale of
 * sigma / (sigma - sigma') times the image's. Source: arXiv 2406.08070, algorithm 2.
 */
import { update } from "./coefficients.ts";
import type { SchedulerConfig } from "./config.ts";
import { ancestralStep, derivativeAt, levelsOf } from "./levels.ts";
import type { MakeOptions, Sampler, StepCoefficients } from "./types.ts";

export const eulerCfgPp: Sampler = {
  follows: ["sigmas", "timestepSpacing"],
  hasKForm: true,
  make: (config, options) => make(config, { ...options, eta: 0 }),
};

export const eulerAncestralCfgPp: Sampler = {
  follows: ["sigmas", "timestepSpacing", "eta"],
  hasKForm: true,
  make,
};

// --- internal ---

function make(config: SchedulerConfig, options: MakeOptions) {
  const { sigmas, timesteps, initNoiseSigma } = levelsOf(config, options);
  const steps = Array.from(timesteps, (timestep, i): StepCoefficients => {
    const [from, to] = [sigmas[i]!, sigmas[i + 1]!];
    const { down, up } = ancestralStep(from, to, options);
    return {
      ...derivativeAt(config, from, timestep),
      latent: update({ sample: 1, modelOutputs: [down - from], noise: up }),
      auxiliary: null,
      samplesNoise: options.eta !== 0 && to > 0,
      guidanceFactor: from / (from - down),
    };
  });
  return { steps, timesteps, sigmas, initNoiseSigma, usesBothBranches: true };
}
