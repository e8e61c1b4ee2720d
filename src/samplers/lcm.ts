/**
 * Latent consistency models: each evaluation predicts the clean latent, to which fresh noise of the
 * next level is added. Timesteps are some of the teacher's. Equal to diffusers' LCMScheduler, and
 * to k-diffusion's sample_lcm as ComfyUI and A1111 have it.
 *
 * Source: arXiv 2310.04378, algorithm 1.
 */
import { alphasCumprod } from "./betas.ts";
import { checkLinear } from "./clipping.ts";
import { dataMix, levelOfAlpha, update } from "./coefficients.ts";
import type { SchedulerConfig } from "./config.ts";
import { kLevels } from "./k-levels.ts";
import { denoisedAt } from "./levels.ts";
import { teacherTimesteps } from "./spacing.ts";
import type { MakeOptions, Sampler, StepCoefficients, Steps } from "./types.ts";

export const lcm: Sampler = {
  follows: ["timesteps"],
  hasKForm: true,
  make(config, options) {
    checkLinear("lcm", config, { thresholding: true });
    if (options.flavour !== "diffusers") return makeK(config, options);
    const { stepCount, timesteps: given, firstStep } = options;
    const timesteps = [...(given ?? teacherTimesteps("lcm", config, stepCount))].slice(firstStep);
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

/** With the levels of k-diffusion, those of LCM's teacher where the spacing or the tool says so. */
function makeK(config: SchedulerConfig, options: MakeOptions): Steps {
  const isDistilled = options.sigmas === "lcm" || options.flavour === "a1111";
  const { sigmas, timesteps, initNoiseSigma } = kLevels(config, options, { isDistilled });
  const steps = Array.from(timesteps, (timestep, i): StepCoefficients => {
    const evaluation = denoisedAt(config, sigmas[i]!, timestep);
    const { skip, out } = isDistilled ? boundary(config, timestep) : { skip: 0, out: 1 };
    const to = sigmas[i + 1]!;
    return {
      ...evaluation,
      outputFromSample: out * evaluation.outputFromSample + skip,
      outputFromModel: out * evaluation.outputFromModel,
      latent: update({ modelOutputs: [1], noise: to }),
      auxiliary: null,
      samplesNoise: to > 0,
    };
  });
  return { steps, timesteps, sigmas, initNoiseSigma };
}

/** How much of the latent and of the prediction the clean latent has: all of the first at 0. */
function boundary({ solver }: SchedulerConfig, timestep: number): { skip: number; out: number } {
  const deviation = 0.5;
  const scaled = timestep * solver.timestepScaling;
  const variance = scaled ** 2 + deviation ** 2;
  return { skip: deviation ** 2 / variance, out: scaled / Math.sqrt(variance) };
}
