/**
 * Euler's method on the probability flow: one straight step along dx/dsigma per evaluation.
 * Model outputs are converted to derivatives. Equal to diffusers' EulerDiscreteScheduler without
 * churn.
 */
import { derivativeMix, update } from "./coefficients.ts";
import { checkSigmaSettings, sigmaSchedule } from "./sigmas.ts";
import type { Sampler, StepCoefficients } from "./types.ts";

export const euler: Sampler = {
  follows: ["sigmas", "timestepSpacing"],
  make(config, options) {
    checkSigmaSettings(config);
    const schedule = sigmaSchedule(config, {
      stepCount: options.stepCount,
      spacing: options.timestepSpacing ?? config.timestepSpacing ?? "linspace",
      kind: options.sigmas,
      finalSigma: config.finalSigmasType,
    });
    const { sigmas, timesteps } = schedule;
    const steps = Array.from(timesteps, (timestep, i): StepCoefficients => {
      const sigma = sigmas[i]!;
      return {
        timestep,
        inputScale: 1 / Math.sqrt(sigma * sigma + 1),
        ...derivativeMix(config.predictionType, sigma),
        latent: update({ sample: 1, modelOutputs: [sigmas[i + 1]! - sigma] }),
        auxiliary: null,
        samplesNoise: false,
      };
    });
    return { ...schedule, steps };
  },
};
