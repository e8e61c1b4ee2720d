/**
 * Ancestral Euler: each step goes below the next noise level, then fresh noise is added up to it.
 * Equal to diffusers' EulerAncestralDiscreteScheduler, which always ends at sigma 0 and reads
 * use_karras_sigmas from no config; here the flag enables it.
 */
import { derivativeMix, update } from "./coefficients.ts";
import { sigmaSchedule } from "./sigmas.ts";
import type { Sampler, StepCoefficients } from "./types.ts";

export const eulerAncestral: Sampler = {
  follows: ["sigmas", "timestepSpacing"],
  followsConfigSigmas: false,
  make(config, options) {
    const schedule = sigmaSchedule(config, {
      stepCount: options.stepCount,
      spacing: options.timestepSpacing ?? config.timestepSpacing ?? "linspace",
      kind: options.sigmas,
      finalSigma: "zero",
    });
    const { sigmas, timesteps } = schedule;
    const steps = Array.from(timesteps, (timestep, i): StepCoefficients => {
      const from = sigmas[i]!;
      const to = sigmas[i + 1]!;
      // to² = up² + down², with up² = to²·(from² - to²) / from²; this form of down does not cancel.
      const down = (to * to) / from;
      const up = (to / from) * Math.sqrt((from - to) * (from + to));
      return {
        timestep,
        inputScale: 1 / Math.sqrt(from * from + 1),
        ...derivativeMix(config.predictionType, from),
        latent: update({ sample: 1, modelOutputs: [down - from], noise: up }),
        auxiliary: null,
        samplesNoise: true,
      };
    });
    return { ...schedule, steps };
  },
};
