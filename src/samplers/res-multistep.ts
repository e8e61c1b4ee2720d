/**
 * RES: a second-order exponential integrator over the last two predictions, without fresh noise or
 * with (ancestral). Equal to ComfyUI's sample_res_multistep and its ancestral one.
 *
 * Source: arXiv 2308.02157.
 */
import { update } from "./coefficients.ts";
import type { SchedulerConfig } from "./config.ts";
import { ancestralStep, denoisedAt, levelsOf } from "./levels.ts";
import type { MakeOptions, Sampler, StepCoefficients } from "./types.ts";

export const resMultistep: Sampler = {
  follows: ["sigmas", "timestepSpacing"],
  hasKForm: true,
  make: (config, options) => make(config, { ...options, eta: 0 }),
};

export const resMultistepAncestral: Sampler = {
  follows: ["sigmas", "timestepSpacing", "eta"],
  hasKForm: true,
  make,
};

// --- internal ---

function make(config: SchedulerConfig, options: MakeOptions) {
  const { sigmas, timesteps, initNoiseSigma } = levelsOf(config, options);
  const ancestral = (i: number) => ancestralStep(sigmas[i]!, sigmas[i + 1]!, options);
  const steps = Array.from(timesteps, (timestep, i): StepCoefficients => {
    const from = sigmas[i]!;
    const { down, up } = ancestral(i);
    const isFirstOrder = down === 0 || i === 0;
    const modelOutputs = isFirstOrder
      ? [1 - down / from]
      : weights(from, down, Math.log(ancestral(i - 1).down / sigmas[i - 1]!));
    return {
      ...denoisedAt(config, from, timestep),
      latent: update({ sample: down / from, modelOutputs, noise: up }),
      auxiliary: null,
      samplesNoise: options.eta !== 0 && sigmas[i + 1]! > 0,
    };
  });
  return { steps, timesteps, sigmas, initNoiseSigma };
}

/** Of the newest and the last prediction; `back` is the last step in log sigma. */
function weights(from: number, down: number, back: number): number[] {
  const h = Math.log(from / down);
  const place = back / h;
  const phi1 = Math.expm1(-h) / -h;
  const phi2 = (phi1 - 1) / -h;
  return [h * (phi1 - phi2 / place), (h * phi2) / place];
}
