/**
 * Builders that samplers share: an update whose other coefficients are 0, and the derivative from
 * the model's output for each prediction type, for latents x = x0 + sigma·noise.
 */
import type { PredictionType } from "../models/config.ts";
import type { Update } from "./types.ts";

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
