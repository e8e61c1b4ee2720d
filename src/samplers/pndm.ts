/**
 * PLMS, the linear multistep half of PNDM: Adams and Bashforth's weights over the last outputs. The
 * first step is taken twice: there and, with the mean of both ends, again. Equal to diffusers'
 * PNDMScheduler with skip_prk_steps.
 *
 * Source: arXiv 2202.09778, equation 12.
 */
import { BasedXLError } from "../errors.ts";
import { a1111Timesteps } from "./a1111-timesteps.ts";
import { alphasCumprod } from "./betas.ts";
import { levelOfAlpha, update } from "./coefficients.ts";
import type { SchedulerConfig } from "./config.ts";
import { checkRange, roundHalfEven, spacedTimesteps } from "./spacing.ts";
import type { Sampler, StepCoefficients } from "./types.ts";

export const pndm: Sampler = {
  follows: ["timestepSpacing"],
  hasKForm: false,
  isOfTimesteps: true,
  isOf: ({ solver }) => solver.skipPrkSteps === true,
  make(config, options) {
    check(config);
    const spacing = options.timestepSpacing ?? config.timestepSpacing ?? "leading";
    const { stepCount } = options;
    const listed = options.flavour === "a1111" ? a1111Timesteps(config, stepCount) : null;
    const spaced =
      listed?.slice(0, -1) ?? spacedTimesteps({ ...config, spacing, stepCount }).map(roundHalfEven);
    checkRange("pndm", spaced, config);
    // The second timestep twice; of A1111 it may be the end.
    const second = listed?.[1] ?? spaced[1];
    const timesteps = [spaced[0]!, ...(second === undefined ? [] : [second]), ...spaced.slice(1)];
    const stride = Math.floor(config.trainTimesteps / stepCount);
    const alphas = alphasCumprod(config);
    const alphaOf = (timestep: number) =>
      timestep >= 0 ? alphas[timestep]! : config.setAlphaToOne ? 1 : alphas[0]!;
    const steps = timesteps.map((timestep, i): StepCoefficients => {
      const own = listed?.slice(Math.max(0, i - 1)) ?? [timestep + stride, timestep];
      const from = i === 1 ? own[0]! : timestep;
      const to = i === 1 ? timestep : listed ? own[1]! : timestep - stride;
      const { ofSample, ofNoise } = stepFactors(config, alphaOf(from), alphaOf(to));
      const { outputs, oldest } = weightsOf(i);
      return {
        timestep,
        inputScale: 1,
        outputFromSample: 0,
        outputFromModel: 1,
        latent: update({
          sample: i === 1 ? 0 : ofSample,
          auxiliary: i === 1 ? ofSample : ofNoise * oldest,
          modelOutputs: outputs.map((weight) => ofNoise * weight),
        }),
        auxiliary: auxiliaryOf(i),
        samplesNoise: false,
      };
    });
    return { steps, timesteps: Float32Array.from(timesteps), sigmas: null, initNoiseSigma: 1 };
  },
};

// --- internal ---

/** Runge-Kutta steps are left out even where a config has them: who names pndm gets PLMS. */
function check({ predictionType }: SchedulerConfig): void {
  if (predictionType !== "sample") return;
  throw new BasedXLError(
    "bad-model",
    'The model\'s prediction type is "sample", which pndm does not support: name another ' +
      "scheduler.",
  );
}

/**
 * The next latent as factors of this one and of the noise, which v gives by
 * alpha·v + sigma·latent.
 */
function stepFactors(config: SchedulerConfig, alphaBar: number, alphaBarNext: number) {
  const from = levelOfAlpha(alphaBar);
  const to = levelOfAlpha(alphaBarNext);
  const ratio = to.alpha / from.alpha;
  const ofNoise =
    (alphaBar - alphaBarNext) / (alphaBar * to.sigma + from.alpha * from.sigma * to.alpha);
  if (config.predictionType === "epsilon") return { ofSample: ratio, ofNoise };
  return { ofSample: ratio + ofNoise * from.sigma, ofNoise: ofNoise * from.alpha };
}

/**
 * Weights of the model outputs of evaluation `index`, newest first. The output of the second one
 * counts in that one alone, and that of the first is in the auxiliary register from then on.
 */
function weightsOf(index: number): { outputs: number[]; oldest: number } {
  switch (index) {
    case 0:
      return { outputs: [1], oldest: 0 };
    case 1:
      return { outputs: [1 / 2, 1 / 2], oldest: 0 };
    case 2:
      return { outputs: [3 / 2], oldest: -1 / 2 };
    case 3:
      return { outputs: [23 / 12, -16 / 12], oldest: 5 / 12 };
    case 4:
      return { outputs: [55 / 24, -59 / 24, 37 / 24], oldest: -9 / 24 };
    default:
      return { outputs: [55 / 24, -59 / 24, 37 / 24, -9 / 24], oldest: 0 };
  }
}

/** First the latent, from which the first step is taken again; then the first output. */
function auxiliaryOf(index: number) {
  if (index === 0) return update({ sample: 1 });
  return index === 1 ? update({ modelOutputs: [0, 1] }) : null;
}
