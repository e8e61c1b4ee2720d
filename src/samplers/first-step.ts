/**
 * Runs that begin at a later step, from an image with that step's noise: what a sampler keeps of
 * earlier steps begins there, while spacings are those of the whole run.
 */
import { alphaBarAt, alphasCumprod } from "./betas.ts";
import { levelOf, levelOfAlpha } from "./coefficients.ts";
import type { SchedulerConfig } from "./config.ts";
import type { NoiseLevel, Steps } from "./types.ts";

/** The levels of a run without those of its first steps. */
export function fromStep<Levels extends { timesteps: Float32Array; sigmas: Float32Array }>(
  levels: Levels,
  firstStep = 0,
): Levels {
  const { timesteps, sigmas } = levels;
  if (firstStep === 0) return levels;
  return { ...levels, timesteps: timesteps.slice(firstStep), sigmas: sigmas.slice(firstStep) };
}

/** Those of the latents that evaluations read, in the sampler's scale. */
export function noiseLevels(
  { steps, sigmas, timesteps }: Pick<Steps, "steps" | "sigmas" | "timesteps">,
  config: SchedulerConfig,
): NoiseLevel[] {
  const alphas = sigmas === null ? alphasCumprod(config) : null;
  return steps.map(({ inputScale }, i) => {
    if (sigmas === null) {
      const { alpha, sigma } = levelOfAlpha(alphaBarAt(alphas!, timesteps[i]!));
      return { signal: alpha, noise: sigma };
    }
    const sigma = sigmas[i]!;
    if (inputScale !== 1) return { signal: 1, noise: sigma };
    const level = levelOf(sigma);
    return { signal: level.alpha, noise: level.sigma };
  });
}
