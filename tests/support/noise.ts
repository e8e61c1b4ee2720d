/**
 * The noise itself as an image's latents: steps that keep the first latent unchanged, or replace it
 * by the sampler's next noise.
 */
import type { ImageRequest } from "../../src/pipeline/session.ts";
import { update } from "../../src/schedule/row.ts";
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
  const keeps = row(update({ sample: 1 }), false);
  const replaces = row(update({ noise: 1 }), true);
  const rows = noiseCount === 0 ? [keeps] : Array.from({ length: noiseCount }, () => replaces);
  return { ...requestOf(work), rows, initNoiseSigma: 1 };
}

function row(latent: StepCoefficients["latent"], drawsNoise: boolean): StepCoefficients {
  const mix = { outputFromSample: 0, outputFromModel: 0 };
  return { timestep: 500, inputScale: 1, ...mix, latent, saved: null, drawsNoise };
}
