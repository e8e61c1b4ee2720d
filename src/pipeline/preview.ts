/**
 * Previews of an image during denoising, by the clean latent that the model predicts in a step, as
 * A1111 and ComfyUI show it: with a TAESD, or by a linear approximation of SDXL's decoder
 * (latent2rgb). That computes one pixel per position of the latent with 12 multiplications; the
 * decoder needs billions.
 *
 * The factors are those that ComfyUI fitted to SDXL's VAE. For another VAE with four channels they
 * show shapes in wrong colours; for other channel counts the first three channels are red, green
 * and blue.
 */
import type { SchedulerConfig } from "../models/config.ts";
import { alphaBarAt, alphasCumprod } from "../samplers/betas.ts";
import { dataMix, levelOf, levelOfAlpha } from "../samplers/coefficients.ts";
import type { StepCoefficients } from "../schedule.ts";

/** Red, green and blue of each channel of the latent, in the sampler's scale. */
const factors = [
  [0.3651, 0.4232, 0.4341],
  [-0.2533, -0.0042, 0.1068],
  [0.1076, 0.1111, -0.0362],
  [-0.3165, -0.2492, -0.2188],
] as const;
const bias = [0.1084, -0.0175, -0.0011] as const;

/** RGB bytes of clean latents (image, row, column, channel) in the sampler's scale. */
export function previewPixels(latent: Float32Array, channels: number): Uint8Array {
  const positionCount = latent.length / channels;
  const pixels = new Uint8Array(positionCount * 3);
  for (let position = 0; position < positionCount; position++) {
    const values = latent.subarray(position * channels, (position + 1) * channels);
    for (let colour = 0; colour < 3; colour++) {
      const level = colourOf(values, colour) + (channels === 4 ? (bias[colour] ?? 0) : 0);
      pixels[position * 3 + colour] = Math.round(255 * Math.min(1, Math.max(0, level / 2 + 0.5)));
    }
  }
  return pixels;
}

/**
 * Two factors of each step, of the latent and of the model's output, whose sum is the clean latent
 * that the output predicts. The noise level is that of the model's input: where the sampler scales
 * it, the latent is x0 + sigma·noise, else alpha·x0 + sigma·noise at the timestep.
 */
export function cleanMixesOf(
  steps: readonly StepCoefficients[],
  config: SchedulerConfig,
): Float32Array {
  const alphaBars = alphasCumprod(config);
  return new Float32Array(
    steps.flatMap(({ timestep, inputScale }) => {
      const level =
        inputScale < 1
          ? levelOf(Math.sqrt(1 / inputScale ** 2 - 1))
          : levelOfAlpha(Math.max(alphaBarAt(alphaBars, timestep), alphaBarMin));
      const mix = dataMix(config.predictionType, level);
      return [mix.outputFromSample * inputScale, mix.outputFromModel];
    }),
  );
}

// --- internal ---

function colourOf(values: Float32Array, colour: number): number {
  if (values.length !== factors.length) return values[colour] ?? 0;
  return factors.reduce((sum, factor, i) => sum + (factor[colour] ?? 0) * (values[i] ?? 0), 0);
}

/** With zero terminal SNR nothing of the image is left; Euler takes as much. */
const alphaBarMin = 2 ** -24;
