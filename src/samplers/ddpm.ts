/**
 * DDPM: the process of training backwards, with fresh noise in every step but at timestep 0. Equal
 * to diffusers' DDPMScheduler with a fixed variance, and to ComfyUI's sample_ddpm.
 *
 * Source: arXiv 2006.11239, equations 6 and 7.
 */
import { BasedXLError, escaped } from "../errors.ts";
import { alphasCumprod } from "./betas.ts";
import { checkLinear } from "./clipping.ts";
import { dataMix, levelOfAlpha, update } from "./coefficients.ts";
import type { SchedulerConfig } from "./config.ts";
import { kLevels } from "./k-levels.ts";
import { checkRange, roundHalfEven, spacedTimesteps } from "./spacing.ts";
import type { MakeOptions, Sampler, StepCoefficients } from "./types.ts";

export const ddpm: Sampler = {
  follows: ["timestepSpacing"],
  hasKForm: true,
  make(config, options) {
    const isOwn = config.className === "DDPMScheduler";
    checkLinear("ddpm", config, { thresholding: true, clips: isOwn });
    const isLarge = options.flavour === "diffusers" && isLargeVariance(config);
    const { timesteps, alphas, sigmas } = levelsOf(config, options);
    const steps = timesteps.map((timestep, i): StepCoefficients => {
      const alpha = alphas[i]!;
      const alphaNext = alphas[i + 1] ?? 1;
      const beta = 1 - alpha / alphaNext;
      const variance = isLarge ? beta : ((1 - alphaNext) / (1 - alpha)) * beta;
      const isNoisy = sigmas === null ? timestep > 0 : sigmas[i + 1]! > 0;
      return {
        timestep,
        inputScale: 1,
        ...dataMix(config.predictionType, levelOfAlpha(alpha)),
        latent: update({
          sample: (Math.sqrt(alpha / alphaNext) * (1 - alphaNext)) / (1 - alpha),
          modelOutputs: [(Math.sqrt(alphaNext) * beta) / (1 - alpha)],
          noise: isNoisy ? Math.sqrt(Math.max(variance, isLarge ? 0 : 1e-20)) : 0,
        }),
        auxiliary: null,
        samplesNoise: isNoisy,
      };
    });
    return { steps, timesteps: Float32Array.from(timesteps), sigmas, initNoiseSigma: 1 };
  },
};

// --- internal ---

/** Timesteps, alphas_cumprod there, and the noise levels of k-diffusion with the final one. */
function levelsOf(config: SchedulerConfig, options: MakeOptions) {
  if (options.flavour !== "diffusers") {
    const { timesteps, sigmas } = kLevels(config, options);
    return {
      timesteps: Array.from(timesteps),
      alphas: Array.from(sigmas, (sigma) => 1 / (sigma * sigma + 1)),
      sigmas,
    };
  }
  const spacing = options.timestepSpacing ?? config.timestepSpacing ?? "leading";
  const { stepCount } = options;
  const whole = spacedTimesteps({ ...config, spacing, stepCount }).map(roundHalfEven);
  const timesteps = whole.slice(options.firstStep);
  checkRange("ddpm", timesteps, config);
  const table = alphasCumprod(config);
  return { timesteps, alphas: timesteps.map((timestep) => table[timestep]!), sigmas: null };
}

function isLargeVariance({ varianceType }: SchedulerConfig): boolean {
  if (varianceType === null || varianceType.startsWith("fixed_small")) return false;
  if (varianceType === "fixed_large") return true;
  throw new BasedXLError(
    "bad-model",
    `The model's scheduler_config.json asks for variance_type "${escaped(varianceType, 60)}", ` +
      "which ddpm does not support; fixed_small and fixed_large are.",
  );
}
