/**
 * Improved PNDM: Adams and Bashforth's weights over the last four derivatives, from the first step
 * on in rising order. ipndm takes the weights of even steps, ipndm_v those of the steps as they
 * are. Equal to ComfyUI's sample_ipndm and sample_ipndm_v.
 *
 * Source: arXiv 2204.13902, appendix B.
 */
import { update } from "./coefficients.ts";
import type { SchedulerConfig } from "./config.ts";
import { derivativeAt, levelsOf } from "./levels.ts";
import type { MakeOptions, Sampler, StepCoefficients } from "./types.ts";

export const ipndm: Sampler = {
  follows: ["sigmas", "timestepSpacing"],
  hasKForm: true,
  make: (config, options) => make(config, options, (widths) => evenWeights[widths.length - 1]!),
};

export const ipndmV: Sampler = {
  follows: ["sigmas", "timestepSpacing"],
  hasKForm: true,
  make: (config, options) => make(config, options, unevenWeights),
};

// --- internal ---

/** `widths` are those of the step and of the ones before it, the newest first. */
type Weights = (widths: readonly number[]) => readonly number[];

function make(config: SchedulerConfig, options: MakeOptions, weightsOf: Weights) {
  const { sigmas, timesteps, initNoiseSigma } = levelsOf(config, options);
  const steps = Array.from(timesteps, (timestep, i): StepCoefficients => {
    const order = sigmas[i + 1] === 0 ? 1 : Math.min(4, i + 1);
    const widths = Array.from({ length: order }, (_, k) => sigmas[i + 1 - k]! - sigmas[i - k]!);
    const modelOutputs = weightsOf(widths).map((weight) => widths[0]! * weight);
    return {
      ...derivativeAt(config, sigmas[i]!, timestep),
      latent: update({ sample: 1, modelOutputs }),
      auxiliary: null,
    };
  });
  return { steps, timesteps, sigmas, initNoiseSigma };
}

const evenWeights = [
  [1],
  [3 / 2, -1 / 2],
  [23 / 12, -16 / 12, 5 / 12],
  [55 / 24, -59 / 24, 37 / 24, -9 / 24],
];

/** From divided differences of the derivatives. */
function unevenWeights(widths: readonly number[]): number[] {
  const [h = 0, h1 = 0, h2 = 0, h3 = 0] = widths;
  if (widths.length === 1) return [1];
  const slope = h / h1;
  const linear = [1 + slope / 2, -slope / 2];
  if (widths.length === 2) return linear;
  const own = (1 - ((h / (3 * (h + h1))) * h * (h + h1)) / (h1 * (h1 + h2))) / 2;
  const quadratic = [own, -(1 + h1 / h2) * own, (own * h1) / h2];
  if (widths.length === 3) return sum(linear, quadratic);
  const third =
    (((1 - h / (3 * (h + h1))) / 2 + ((1 - h / (2 * (h + h1))) * h) / (6 * (h + h1 + h2))) *
      (h * (h + h1) * (h + h1 + h2))) /
    (h1 * (h1 + h2) * (h1 + h2 + h3));
  const ratio = (h1 * (h1 + h2)) / (h2 * (h2 + h3));
  const cubic = [
    third,
    -(1 + h1 / h2 + ratio) * third,
    (h1 / h2 + ratio * (1 + h2 / h3)) * third,
    (-third * ratio * h1) / h2,
  ];
  return sum(sum(linear, quadratic), cubic);
}

/** The shorter one goes on with zeros. */
function sum(a: readonly number[], b: readonly number[]): number[] {
  return b.map((value, i) => value + (a[i] ?? 0));
}
