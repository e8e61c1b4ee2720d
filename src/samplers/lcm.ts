/**
 * Latent consistency models: each evaluation predicts the clean latent, to which fresh noise of the
 * next level is added. Timesteps are some of the teacher's. Equal to diffusers' LCMScheduler.
 *
 * Source: arXiv 2310.04378, algorithm 1.
 */

import { alphasCumprod } from "./betas.ts";
import { checkLinear } from "./clipping.ts";
import { dataMix, levelOfAlpha, update } from "./coefficients.ts";
import type { SchedulerConfig } from "./config.ts";
import { teacherTimesteps } from "./spacing.ts";
import type { Sampler, StepCoefficients } from "./types.ts";

export const lcm: Sampler = {
  follows: ["timesteps"],
  make(config, { stepCount, timesteps: given }) {
    checkLinear("lcm", config, { thresholding: true });
    const timesteps = [...(given ?? teacherTimesteps("lcm", config, stepCount))];
    const alphas = alphasCumprod(config);
    const steps = timesteps.map((timestep, i): StepCoefficients => {
      const { skip, out } = boundary(config, timestep);
      const next = timesteps[i + 1];
      const { alpha, sigma } = levelOfAlpha(next === undefined ? 1 : alphas[next]!);
      return {
        timestep,
        inputScale: 1,
        ...dataMix(config.predictionType, levelOfAlpha(alphas[timestep]!)),
        latent: update({ sample: alpha * skip, modelOutputs: [alpha * out], noise: sigma }),
        auxiliary: null,
        samplesNoise: next !== undefined,
      };
    });
    return { steps, timesteps: Float32Array.from(timesteps), sigmas: null, initNoiseSigma: 1 };
  },
};

// --- internal ---

/** How much of the latent and of the prediction the clean latent has: all of the first at 0. */
function boundary({ solver }: SchedulerConfig, timestep: number): { skip: number; out: number } {
  const deviation = 0.5;
  const scaled = timestep * solver.timestepScaling;
  const variance = scaled ** 2 + deviation ** 2;
  return { skip: deviation ** 2 / variance, out: scaled / Math.sqrt(variance) };
}
