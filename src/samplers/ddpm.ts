/**
 * DDPM: the process of training backwards, with fresh noise in every step but at timestep 0. Equal
 * to diffusers' DDPMScheduler with a fixed variance.
 *
 * Source: arXiv 2006.11239, equations 6 and 7.
 */
import { BasedXLError, escaped } from "../errors.ts";
import { alphasCumprod } from "./betas.ts";
import { checkLinear } from "./clipping.ts";
import { dataMix, levelOfAlpha, update } from "./coefficients.ts";
import type { SchedulerConfig } from "./config.ts";
import { checkRange, roundHalfEven, spacedTimesteps } from "./spacing.ts";
import type { Sampler, StepCoefficients } from "./types.ts";

export const ddpm: Sampler = {
  follows: ["timestepSpacing"],
  make(config, options) {
    const isOwn = config.className === "DDPMScheduler";
    checkLinear("ddpm", config, { thresholding: true, clips: isOwn });
    const isLarge = isLargeVariance(config);
    const spacing = options.timestepSpacing ?? config.timestepSpacing ?? "leading";
    const { stepCount } = options;
    const timesteps = spacedTimesteps({ ...config, spacing, stepCount }).map(roundHalfEven);
    checkRange("ddpm", timesteps, config);
    const alphas = alphasCumprod(config);
    const steps = timesteps.map((timestep, i): StepCoefficients => {
      const alpha = alphas[timestep]!;
      const next = timesteps[i + 1];
      const alphaNext = next === undefined ? 1 : alphas[next]!;
      const beta = 1 - alpha / alphaNext;
      const variance = isLarge ? beta : ((1 - alphaNext) / (1 - alpha)) * beta;
      return {
        timestep,
        inputScale: 1,
        ...dataMix(config.predictionType, levelOfAlpha(alpha)),
        latent: update({
          sample: (Math.sqrt(alpha / alphaNext) * (1 - alphaNext)) / (1 - alpha),
          modelOutputs: [(Math.sqrt(alphaNext) * beta) / (1 - alpha)],
          noise: timestep > 0 ? Math.sqrt(Math.max(variance, isLarge ? 0 : 1e-20)) : 0,
        }),
        auxiliary: null,
        samplesNoise: timestep > 0,
      };
    });
    return { steps, timesteps: Float32Array.from(timesteps), sigmas: null, initNoiseSigma: 1 };
  },
};

// --- internal ---

function isLargeVariance({ varianceType }: SchedulerConfig): boolean {
  if (varianceType === null || varianceType.startsWith("fixed_small")) return false;
  if (varianceType === "fixed_large") return true;
  throw new BasedXLError(
    "bad-model",
    `The model's scheduler_config.json asks for variance_type "${escaped(varianceType, 60)}", ` +
      "which ddpm does not support; fixed_small and fixed_large are.",
  );
}
