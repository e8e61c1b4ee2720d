/**
 * PNDM: Adams and Bashforth's weights over the last outputs (PLMS). The first three steps are Runge
 * and Kutta's, of four evaluations each, where the model's config has them; else the first step is
 * taken twice: there and, with the mean of both ends, again. Equal to diffusers' PNDMScheduler.
 *
 * Source: arXiv 2202.09778, equations 12 and 13.
 */
import { BasedXLError } from "../errors.ts";
import { a1111Timesteps } from "./a1111-timesteps.ts";
import { alphasCumprod } from "./betas.ts";
import { levelOfAlpha, update } from "./coefficients.ts";
import type { SchedulerConfig } from "./config.ts";
import { checkRange, roundHalfEven, spacedTimesteps } from "./spacing.ts";
import type { Sampler, StepCoefficients, Steps } from "./types.ts";

export const pndm: Sampler = {
  follows: ["timestepSpacing"],
  hasKForm: false,
  isOfTimesteps: true,
  make(config, options) {
    check(config);
    const spacing = options.timestepSpacing ?? config.timestepSpacing ?? "leading";
    const { stepCount } = options;
    const { firstStep } = options;
    const own = options.flavour === "a1111" ? a1111Timesteps(config, options) : null;
    const listed = own?.timesteps ?? null;
    const whole = spacedTimesteps({ ...config, spacing, stepCount }).map(roundHalfEven);
    const spaced = listed?.slice(0, -1) ?? whole.slice(firstStep);
    checkRange("pndm", spaced, config);
    const stride = Math.floor(config.trainTimesteps / stepCount);
    if (!listed && hasRungeKutta(config)) return withRungeKutta(config, spaced, stride);
    // The second timestep twice; of A1111 it may be the end.
    const second = listed?.[1] ?? spaced[1];
    const timesteps = [spaced[0]!, ...(second === undefined ? [] : [second]), ...spaced.slice(1)];
    const factorsOf = transfers(config);
    const steps = timesteps.map((timestep, i): StepCoefficients => {
      const near = listed?.slice(Math.max(0, i - 1)) ?? [timestep + stride, timestep];
      const from = i === 1 ? near[0]! : timestep;
      const to = i === 1 ? timestep : listed ? near[1]! : timestep - stride;
      const { ofSample, ofNoise } = factorsOf(from, to);
      const { outputs, oldest } = weightsOf(i);
      return {
        ...evaluationAt(timestep),
        latent: update({
          sample: i === 1 ? 0 : ofSample,
          auxiliary: i === 1 ? ofSample : ofNoise * oldest,
          modelOutputs: outputs.map((weight) => ofNoise * weight),
        }),
        auxiliary: auxiliaryOf(i),
      };
    });
    return {
      ...{ steps, timesteps: Float32Array.from(timesteps), sigmas: null },
      ...{ initNoiseSigma: 1, startLevel: own?.startLevel },
    };
  },
};

// --- internal ---

function check({ predictionType }: SchedulerConfig): void {
  if (predictionType !== "sample") return;
  throw new BasedXLError(
    "bad-model",
    'The model\'s prediction type is "sample", which pndm does not support: name another ' +
      "scheduler.",
  );
}

/** That of diffusers by default. The config of another class says nothing of it. */
function hasRungeKutta({ className, solver }: SchedulerConfig): boolean {
  return className === "PNDMScheduler" && solver.skipPrkSteps !== true;
}

/**
 * Three Runge-Kutta steps, then PLMS: the outputs at the start of each step are what that reads.
 * diffusers takes at least 4 steps; of fewer, all but the last are Runge-Kutta steps here.
 */
function withRungeKutta(config: SchedulerConfig, spaced: readonly number[], stride: number): Steps {
  const factorsOf = transfers(config);
  const half = Math.floor(stride / 2);
  const count = Math.min(3, spaced.length - 1);
  const grouped = spaced.map((timestep, i): StepCoefficients[] => {
    const replacesOutput = i > 0 && i <= count;
    if (i < count) {
      const middle = spaced[i + 1]! + half;
      return rungeKuttaStep([timestep, middle, spaced[i + 1]!], {
        toMiddle: factorsOf(timestep, timestep - half),
        again: factorsOf(timestep, middle),
        toEnd: factorsOf(timestep, spaced[i + 1]!),
        replacesOutput,
      });
    }
    const { ofSample, ofNoise } = factorsOf(timestep, timestep - stride);
    const modelOutputs = multistepWeights[Math.min(i, 3)]!.map((weight) => ofNoise * weight);
    const latent = update({ sample: ofSample, modelOutputs });
    return [{ ...evaluationAt(timestep), latent, auxiliary: null, replacesOutput }];
  });
  const steps = grouped.flat();
  return {
    steps,
    stepOfEvaluation: grouped.flatMap((group, i) => group.map(() => i)),
    timesteps: Float32Array.from(steps, ({ timestep }) => timestep),
    sigmas: null,
    initNoiseSigma: 1,
  };
}

interface Transfer {
  ofSample: number;
  ofNoise: number;
}

/**
 * The four evaluations of a Runge-Kutta step, each from the latent x0 at the step's start, which
 * the auxiliary register keeps. The outputs of the second to the fourth take one place, behind
 * which the first one stays; so the third evaluation, which comes from
 * again.ofSample·x0 + again.ofNoise·e1, subtracts x0 to have the second output e1. It leaves in the
 * auxiliary register all of the step's end but the share of the fourth.
 */
function rungeKuttaStep(
  [start, middle, end]: [number, number, number],
  o: { toMiddle: Transfer; again: Transfer; toEnd: Transfer; replacesOutput: boolean },
): StepCoefficients[] {
  const { toMiddle, again, toEnd, replacesOutput } = o;
  const { ofSample, ofNoise } = toEnd;
  const ofSecond = ofNoise / 3 / again.ofNoise;
  return [
    {
      ...evaluationAt(start),
      latent: update({ sample: toMiddle.ofSample, modelOutputs: [toMiddle.ofNoise] }),
      auxiliary: update({ sample: 1 }),
      replacesOutput,
    },
    {
      ...evaluationAt(middle),
      latent: update({ auxiliary: again.ofSample, modelOutputs: [again.ofNoise] }),
      auxiliary: null,
    },
    {
      ...evaluationAt(middle),
      latent: update({ auxiliary: ofSample, modelOutputs: [ofNoise] }),
      auxiliary: update({
        sample: ofSecond,
        auxiliary: ofSample - ofSecond * again.ofSample,
        modelOutputs: [ofNoise / 3, ofNoise / 6],
      }),
      replacesOutput: true,
    },
    {
      ...evaluationAt(end),
      latent: update({ auxiliary: 1, modelOutputs: [ofNoise / 6] }),
      auxiliary: null,
      replacesOutput: true,
    },
  ];
}

/** Model outputs are kept as they are. */
function evaluationAt(timestep: number) {
  const output = { outputFromSample: 0, outputFromModel: 1 };
  return { timestep, inputScale: 1, ...output, samplesNoise: false };
}

/** `stepFactors` between two timesteps; below 0 is the end. */
function transfers(config: SchedulerConfig): (from: number, to: number) => Transfer {
  const alphas = alphasCumprod(config);
  const alphaOf = (timestep: number) =>
    timestep >= 0 ? alphas[timestep]! : config.setAlphaToOne ? 1 : alphas[0]!;
  return (from, to) => stepFactors(config, alphaOf(from), alphaOf(to));
}

/**
 * The next latent as factors of this one and of the noise, which v gives by
 * alpha·v + sigma·latent.
 */
function stepFactors(config: SchedulerConfig, alphaBar: number, alphaBarNext: number): Transfer {
  const from = levelOfAlpha(alphaBar);
  const to = levelOfAlpha(alphaBarNext);
  const ratio = to.alpha / from.alpha;
  const ofNoise =
    (alphaBar - alphaBarNext) / (alphaBar * to.sigma + from.alpha * from.sigma * to.alpha);
  if (config.predictionType === "epsilon") return { ofSample: ratio, ofNoise };
  return { ofSample: ratio + ofNoise * from.sigma, ofNoise: ofNoise * from.alpha };
}

/** Adams and Bashforth's for one output, two, three and four; the newest first. */
const multistepWeights = [
  [1],
  [3 / 2, -1 / 2],
  [23 / 12, -16 / 12, 5 / 12],
  [55 / 24, -59 / 24, 37 / 24, -9 / 24],
] as const;

/**
 * Weights of the model outputs of evaluation `index`, newest first. The output of the second one
 * counts in that one alone, and that of the first is in the auxiliary register from then on.
 */
function weightsOf(index: number): { outputs: number[]; oldest: number } {
  if (index === 1) return { outputs: [1 / 2, 1 / 2], oldest: 0 };
  const weights = multistepWeights[Math.min(Math.max(0, index - 1), 3)]!;
  if (index === 0 || index > 4) return { outputs: [...weights], oldest: 0 };
  return { outputs: weights.slice(0, -1), oldest: weights.at(-1)! };
}

/** First the latent, from which the first step is taken again; then the first output. */
function auxiliaryOf(index: number) {
  if (index === 0) return update({ sample: 1 });
  return index === 1 ? update({ modelOutputs: [0, 1] }) : null;
}
