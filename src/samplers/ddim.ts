/**
 * DDIM: predicts the clean latent and its noise, then combines them for the next noise level, with
 * a share `eta` of fresh noise. Uses alphas_cumprod at integer timesteps, so there are no sigmas
 * that Karras' could replace.
 *
 * Source: arXiv 2010.02502, equations 12 and 16; diffusers DDIMScheduler.
 */
import { a1111Timesteps } from "./a1111-timesteps.ts";
import { alphasCumprod } from "./betas.ts";
import { checkLinear } from "./clipping.ts";
import { update } from "./coefficients.ts";
import type { SchedulerConfig } from "./config.ts";
import { eulerSteps } from "./euler.ts";
import type { PredictionType } from "./names.ts";
import { checkRange, roundHalfEven, spacedTimesteps } from "./spacing.ts";
import type { Sampler, StepCoefficients } from "./types.ts";

export const ddim: Sampler = {
  follows: ["timestepSpacing", "timesteps", "eta"],
  hasKForm: true,
  isOfTimesteps: true,
  make(config, options) {
    // ComfyUI's is Euler's method, and has no noise.
    if (options.flavour === "kdiffusion") return eulerSteps(config, options);
    const { stepCount, eta = 0 } = options;
    checkLinear("ddim", config, { thresholding: true, clips: isOn(config, null) });
    const spacing = options.timestepSpacing ?? config.timestepSpacing ?? "leading";
    const spaced = () => spacedTimesteps({ ...config, spacing, stepCount }).map(roundHalfEven);
    const own = options.flavour === "a1111" ? a1111Timesteps(config, options) : null;
    const listed = own?.timesteps ?? options.timesteps;
    const end = own?.timesteps.at(-1) ?? -1;
    const timesteps = own
      ? own.timesteps.slice(0, -1)
      : (listed ?? spaced()).slice(options.firstStep);
    checkRange("ddim", timesteps, config);

    const alphas = alphasCumprod(config);
    const alphaFinal = isOn(config, config.setAlphaToOne) ? 1 : alphas[0]!;
    const stride = Math.floor(config.trainTimesteps / stepCount);
    const steps = timesteps.map((timestep, i): StepCoefficients => {
      const previous = listed ? (timesteps[i + 1] ?? end) : timestep - stride;
      const alpha = alphas[timestep]!;
      const alphaNext = previous >= 0 ? alphas[previous]! : alphaFinal;
      const fresh = freshNoise(eta, alpha, alphaNext);
      const { fromSample, fromModel } = stepMix(config.predictionType, alpha, alphaNext, fresh);
      return {
        timestep,
        inputScale: 1,
        outputFromSample: 0,
        outputFromModel: 1,
        latent: update({ sample: fromSample, modelOutputs: [fromModel], noise: fresh }),
        auxiliary: null,
        samplesNoise: eta > 0,
      };
    });
    return {
      ...{ steps, timesteps: Float32Array.from(timesteps), sigmas: null },
      ...{ initNoiseSigma: 1, startLevel: own?.startLevel },
    };
  },
};

// --- internal ---

/** The deviation of the fresh noise of a step. */
function freshNoise(eta: number, alpha: number, alphaNext: number): number {
  if (eta === 0) return 0;
  return eta * Math.sqrt(((1 - alphaNext) / (1 - alpha)) * (1 - alpha / alphaNext));
}

/**
 * The next latent as a linear combination of this one and the model's output; `alpha` is
 * alphas_cumprod at this level, `fresh` the deviation of the noise that is added.
 */
function stepMix(predictionType: PredictionType, alpha: number, alphaNext: number, fresh: number) {
  const signal = Math.sqrt(alpha);
  const noise = Math.sqrt(1 - alpha);
  const signalNext = Math.sqrt(alphaNext);
  const noiseNext = Math.sqrt(1 - alphaNext - fresh * fresh);
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
  return value ?? config.className === "DDIMScheduler";
}
