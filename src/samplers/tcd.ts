/**
 * Trajectory consistency distillation: each evaluation leads to a level between this and the next
 * timestep's clean end, from where fresh noise leads up to the next one. `eta` sets the share of
 * noise, 0 for none. Equal to diffusers' TCDScheduler.
 *
 * Source: arXiv 2402.19159, algorithm 4 (gamma is eta).
 */
import { alphasCumprod } from "./betas.ts";
import { checkLinear } from "./clipping.ts";
import { dataMix, type Level, levelOfAlpha, update } from "./coefficients.ts";
import { teacherTimesteps } from "./spacing.ts";
import type { Sampler, StepCoefficients } from "./types.ts";

const f32 = Math.fround;
/** The default of diffusers' `step`. */
const etaDefault = 0.3;

export const tcd: Sampler = {
  follows: ["eta", "timesteps"],
  hasKForm: false,
  make(config, { stepCount, timesteps: given, firstStep, eta = etaDefault }) {
    checkLinear("tcd", config, { thresholding: true });
    const timesteps = [...(given ?? teacherTimesteps("tcd", config, stepCount))].slice(firstStep);
    const alphas = alphasCumprod(config);
    const steps = timesteps.map((timestep, i): StepCoefficients => {
      const next = timesteps[i + 1] ?? 0;
      // The product is f32's: a whole number must not fall below itself.
      const between = Math.floor(f32(f32(1 - eta) * next));
      const from = levelOfAlpha(alphas[timestep]!);
      const to = levelOfAlpha(alphas[between]!);
      const samplesNoise = eta > 0 && i + 1 < timesteps.length;
      const kept = samplesNoise ? alphas[next]! / alphas[between]! : 1;
      const scale = Math.sqrt(kept);
      const { sample, model } = combined(from, to);
      return {
        timestep,
        inputScale: 1,
        ...dataMix(config.predictionType, from),
        latent: update({
          sample: scale * sample,
          modelOutputs: [scale * model],
          noise: samplesNoise ? Math.sqrt(1 - kept) : 0,
        }),
        auxiliary: null,
        samplesNoise,
      };
    });
    return { steps, timesteps: Float32Array.from(timesteps), sigmas: null, initNoiseSigma: 1 };
  },
};

// --- internal ---

/** The latent at `to` from that at `from` and the clean one: their noise is the same. */
function combined(from: Level, to: Level): { sample: number; model: number } {
  const sample = to.sigma / from.sigma;
  return { sample, model: to.alpha - sample * from.alpha };
}
