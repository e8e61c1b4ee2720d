/**
 * DPM-Solver-2 of k-diffusion: the derivative at the (geometric) middle of the step takes the whole
 * of it. Two evaluations per step, one in the last; ends at sigma 0. The ancestral one goes below
 * the next level and adds fresh noise up to it.
 *
 * Source: arXiv 2206.00364, algorithm 2, without churn; diffusers KDPM2DiscreteScheduler and
 * KDPM2AncestralDiscreteScheduler.
 */
import { update } from "./coefficients.ts";
import type { SchedulerConfig } from "./config.ts";
import { ancestralStep, derivativeAt, levelsOf, middleOf } from "./levels.ts";
import type { MakeOptions, Sampler, StepCoefficients } from "./types.ts";

export const dpm2: Sampler = {
  follows: ["sigmas", "timestepSpacing"],
  hasKForm: true,
  make: (config, options) => make(config, { ...options, eta: 0 }),
};

export const dpm2Ancestral: Sampler = {
  follows: ["sigmas", "timestepSpacing", "eta"],
  hasKForm: true,
  make,
};

// --- internal ---

function make(config: SchedulerConfig, options: MakeOptions) {
  const levels = levelsOf(config, options, { roundsKarras: true, discardsLast: true });
  const { sigmas, timesteps, timestepOf, initNoiseSigma } = levels;
  const steps: StepCoefficients[] = [];
  const visited: number[] = [];
  const evaluate = (sigma: number, timestep: number) => {
    visited.push(sigma);
    return derivativeAt(config, sigma, timestep);
  };
  const count = timesteps.length;
  for (let i = 0; i < count; i++) {
    const from = sigmas[i]!;
    const to = sigmas[i + 1]!;
    const isLast = i + 1 === count;
    const { down, up } = ancestralStep(from, to, options);
    const middle = isLast ? to : middleOf(from, down, options.flavour);
    steps.push({
      ...evaluate(from, timesteps[i]!),
      latent: update({ sample: 1, modelOutputs: [middle - from] }),
      auxiliary: update({ sample: 1 }),
    });
    if (isLast) break;
    steps.push({
      ...evaluate(middle, timestepOf(middle)),
      latent: update({ auxiliary: 1, modelOutputs: [down - from], noise: up }),
      auxiliary: null,
      samplesNoise: options.eta !== 0,
    });
  }
  return {
    steps,
    timesteps: Float32Array.from(steps, ({ timestep }) => timestep),
    sigmas: Float32Array.of(...visited, sigmas[count]!),
    initNoiseSigma,
  };
}
