/**
 * DDIM without noise (eta 0): predicts the clean latent and its noise, then combines them for the
 * next noise level. Uses alphas_cumprod at integer timesteps, so there are no sigmas that Karras'
 * could replace.
 *
 * Source: arXiv 2010.02502, equations 12 and 16; diffusers DDIMScheduler.
 */
import { BasedXLError } from "../errors.ts";
import type { PredictionType, SchedulerConfig } from "../models/config.ts";
import { alphasCumprod } from "./betas.ts";
import { update } from "./coefficients.ts";
import { roundHalfEven, spacedTimesteps } from "./spacing.ts";
import type { Sampler, StepCoefficients } from "./types.ts";

export const ddim: Sampler = {
  className: "DDIMScheduler",
  make(config, options) {
    const { stepCount } = options;
    if (options.useKarrasSigmas) {
      throw new BasedXLError(
        "bad-option",
        "The ddim scheduler has no sigmas, so it cannot use Karras sigmas; euler and euler_a can.",
      );
    }
    checkLinear(config);
    const spacing = options.timestepSpacing ?? config.timestepSpacing ?? "leading";
    const timesteps = spacedTimesteps({ ...config, spacing, stepCount }).map(roundHalfEven);
    checkRange(timesteps, config);

    const alphas = alphasCumprod(config);
    const alphaFinal = isOn(config, config.setAlphaToOne) ? 1 : alphas[0]!;
    const stride = Math.floor(config.trainTimesteps / stepCount);
    const steps = timesteps.map((timestep): StepCoefficients => {
      const previous = timestep - stride;
      const alpha = alphas[timestep]!;
      const alphaNext = previous >= 0 ? alphas[previous]! : alphaFinal;
      const { fromSample, fromModel } = stepMix(config.predictionType, alpha, alphaNext);
      return {
        timestep,
        inputScale: 1,
        outputFromSample: 0,
        outputFromModel: 1,
        latent: update({ sample: fromSample, modelOutputs: [fromModel] }),
        auxiliary: null,
        samplesNoise: false,
      };
    });
    return { steps, timesteps: Float32Array.from(timesteps), sigmas: null, initNoiseSigma: 1 };
  },
};

// --- internal ---

/**
 * The next latent as a linear combination of this one and the model's output; `alpha` is
 * alphas_cumprod at this level.
 */
function stepMix(predictionType: PredictionType, alpha: number, alphaNext: number) {
  const signal = Math.sqrt(alpha);
  const noise = Math.sqrt(1 - alpha);
  const signalNext = Math.sqrt(alphaNext);
  const noiseNext = Math.sqrt(1 - alphaNext);
  switch (predictionType) {
    case "epsilon":
      return {
        fromSample: signalNext / signal,
        fromModel: noiseNext - (signalNext * noise) / signal,
      };
    case "v_prediction":
      return {
        fromSample: signalNext * signal + noiseNext * noise,
        fromModel: noiseNext * signal - signalNext * noise,
      };
    case "sample":
      return {
        fromSample: noiseNext / noise,
        fromModel: signalNext - (noiseNext * signal) / noise,
      };
  }
}

/**
 * A DDIM config that leaves a switch out means diffusers' default, true. Configs of other samplers
 * mostly lack the keys, and SDXL's own values are false.
 */
function isOn(config: SchedulerConfig, value: boolean | null): boolean {
  return value ?? config.className === ddim.className;
}

function checkLinear(config: SchedulerConfig): void {
  const clips = isOn(config, config.clipSample);
  if (!clips && !config.unsupported.thresholding) return;
  throw new BasedXLError(
    "bad-model",
    `The model's scheduler_config.json has ${clips ? "clip_sample" : "thresholding"} true, which ` +
      "ddim does not support: latents have no fixed range. Set it to false, or use euler.",
  );
}

function checkRange(timesteps: number[], config: SchedulerConfig): void {
  const last = config.trainTimesteps - 1;
  if (timesteps.every((timestep) => timestep >= 0 && timestep <= last)) return;
  throw new BasedXLError(
    "bad-option",
    `${timesteps.length} steps with steps_offset ${config.stepsOffset} leave the timesteps 0 to ` +
      `${last} that ddim can use; ask for fewer steps, or for the timestep spacing "trailing".`,
  );
}
