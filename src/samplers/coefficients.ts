/**
 * Builders that samplers share: an update whose other coefficients are 0, and what follows from
 * the model's output for each prediction type: the derivative of latents x = x0 + sigma·noise, the
 * clean latent and the noise of latents x = alpha·x0 + sigma·noise.
 */
import type { PredictionType } from "./names.ts";
import type { StepCoefficients, Update } from "./types.ts";

/** An update whose coefficients are 0 unless given; `modelOutputs` holds the newest first. */
export function update(parts: {
  sample?: number;
  auxiliary?: number;
  modelOutputs?: number[];
  noise?: number;
}): Update {
  const [a = 0, b = 0, c = 0, d = 0] = parts.modelOutputs ?? [];
  const { sample = 0, auxiliary = 0, noise = 0 } = parts;
  return { sample, auxiliary, modelOutputs: [a, b, c, d], noise };
}

/** A step with everything that samplers may leave out. */
export function completed(step: StepCoefficients): Required<StepCoefficients> {
  return { replacesOutput: false, guidanceFactor: 1, noiseFrom: 0, noiseTo: 0, ...step };
}

/** Coefficients of a linear combination of the latent and the model's output. */
interface OutputMix {
  outputFromSample: number;
  outputFromModel: number;
}

/**
 * The derivative dx/dsigma = (x - x0) / sigma at noise level `sigma` > 0, as a linear combination
 * of x and the model's output. x0 by prediction type: diffusers' `EulerDiscreteScheduler.step`.
 */
export function derivativeMix(predictionType: PredictionType, sigma: number): OutputMix {
  const variance = sigma * sigma + 1;
  switch (predictionType) {
    case "epsilon":
      return { outputFromSample: 0, outputFromModel: 1 };
    case "v_prediction":
      return { outputFromSample: sigma / variance, outputFromModel: 1 / Math.sqrt(variance) };
    case "sample":
      return { outputFromSample: 1 / sigma, outputFromModel: -1 / sigma };
  }
}

/** A noise level of latents x = alpha·x0 + sigma·noise, where alpha² + sigma² = 1. */
export interface Level {
  alpha: number;
  sigma: number;
  /** The logarithm of alpha / sigma; infinite without noise. */
  lambda: number;
}

/** The level with sigma / alpha = `ratio`, which is the sigma of x = x0 + sigma·noise. */
export function levelOf(ratio: number): Level {
  const alpha = 1 / Math.sqrt(ratio * ratio + 1);
  return { alpha, sigma: ratio * alpha, lambda: -Math.log(ratio) };
}

/** The level of a training timestep with alphas_cumprod `alphaBar`. */
export function levelOfAlpha(alphaBar: number): Level {
  const alpha = Math.sqrt(alphaBar);
  const sigma = Math.sqrt(1 - alphaBar);
  return { alpha, sigma, lambda: Math.log(alpha / sigma) };
}

/** The clean latent x0 as a combination of x and the model's output. */
export function dataMix(predictionType: PredictionType, { alpha, sigma }: Level): OutputMix {
  switch (predictionType) {
    case "epsilon":
      return { outputFromSample: 1 / alpha, outputFromModel: -sigma / alpha };
    case "v_prediction":
      return { outputFromSample: alpha, outputFromModel: -sigma };
    case "sample":
      return { outputFromSample: 0, outputFromModel: 1 };
  }
}

/** The noise in x as a combination of x and the model's output. */
export function noiseMix(predictionType: PredictionType, { alpha, sigma }: Level): OutputMix {
  switch (predictionType) {
    case "epsilon":
      return { outputFromSample: 0, outputFromModel: 1 };
    case "v_prediction":
      return { outputFromSample: sigma, outputFromModel: alpha };
    case "sample":
      return { outputFromSample: 1 / sigma, outputFromModel: -alpha / sigma };
  }
}
