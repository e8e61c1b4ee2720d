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

export interface BrownianWork extends Work {
  /** Of each step: from, to. */
  levels: readonly (readonly [number, number])[];
}

/** The noise of each step of `work` on the Brownian path over its levels. */
export function drawBrownian({ levels, ...work }: BrownianWork): Promise<Float32Array[]> {
  const all = levels.flat();
  return withSession(work, async (session) => {
    const drawn = [];
    for (const [noiseFrom, noiseTo] of levels) {
      const replaces = { ...step(update({ noise: 1 }), true), noiseFrom, noiseTo };
      const request: ImageRequest = {
        ...requestOf(work),
        ...{ steps: [replaces], initNoiseSigma: 1, noiseSource: "brownian" },
        noiseRng: work.rng ?? "cpu",
        ...{ brownianMin: Math.min(...all), brownianMax: Math.max(...all) },
      };
      drawn.push(latentsOf(await session.image(request)));
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
