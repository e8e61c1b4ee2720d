/**
 * The noise itself as an image's latents: steps that keep the first latent unchanged, or replace it
 * by the sampler's next noise.
 */
import type { ImageRequest } from "../../src/pipeline/session.ts";
import { update } from "../../src/samplers/coefficients.ts";
import type { StepCoefficients } from "../../src/schedule.ts";
import { latentsOf, requestOf, type Work, withSession } from "./draw.ts";

/** Latents of `work` after each of `drawCount` draws: the first latent, then the steps' noise. */
export function drawNoise(work: Work, drawCount: number): Promise<Float32Array[]> {
  return withSession(work, async (session) => {
    const drawn = [];
    for (let noiseCount = 0; noiseCount < drawCount; noiseCount++) {
      drawn.push(latentsOf(await session.image(noiseRequest(work, noiseCount))));
    }
    return drawn;
  });
}

// --- internal ---

function noiseRequest(work: Work, noiseCount: number): ImageRequest {
  const keeps = step(update({ sample: 1 }), false);
  const replaces = step(update({ noise: 1 }), true);
  const steps = noiseCount === 0 ? [keeps] : Array.from({ length: noiseCount }, () => replaces);
  return { ...requestOf(work), steps, initNoiseSigma: 1 };
}

function step(latent: StepCoefficients["latent"], samplesNoise: boolean): StepCoefficients {
  const mix = { outputFromSample: 0, outputFromModel: 0 };
  return { timestep: 500, inputScale: 1, ...mix, latent, auxiliary: null, samplesNoise };
}
