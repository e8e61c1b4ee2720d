/**
 * UniPC: each model output first corrects the latent that it was computed at, then predicts the
 * next one. The auxiliary register holds the last corrected latent. Equal to diffusers'
 * UniPCMultistepScheduler and to ComfyUI's uni_pc (bh1) and uni_pc_bh2.
 *
 * Source: arXiv 2302.04867.
 */
import { BasedXLError, escaped } from "../errors.ts";
import { a1111Times } from "./a1111-timesteps.ts";
import { checkLinear } from "./clipping.ts";
import { dataMix, type Level, levelOf, noiseMix, update } from "./coefficients.ts";
import type { SchedulerConfig } from "./config.ts";
import { orderOf } from "./dpm-solver.ts";
import { fromStep } from "./first-step.ts";
import { kLevels } from "./k-levels.ts";
import { solverLevels } from "./solver-levels.ts";
import type { MakeOptions, Sampler, StepCoefficients } from "./types.ts";

/** ComfyUI's and A1111's is bh1; the config of diffusers says which, or bh2. */
export const unipc: Sampler = {
  follows: ["sigmas", "timestepSpacing", "timestepRounding"],
  hasKForm: true,
  isOfTimesteps: true,
  make(config, options) {
    const isB1 = options.flavour !== "diffusers" || solverOf(config).isB1;
    return make("unipc", config, options, isB1);
  },
};

export const unipcBh2: Sampler = {
  follows: ["sigmas", "timestepSpacing", "timestepRounding"],
  hasKForm: true,
  isOfTimesteps: true,
  make: (config, options) => make("unipc_bh2", config, options, false),
};

// --- internal ---

/** What stands for the level without noise in ComfyUI's UniPC. */
const leastSigma = 0.001;

function levelsOf(config: SchedulerConfig, options: MakeOptions) {
  if (options.flavour === "a1111") {
    const times = a1111Times(config, options);
    return times.startLevel ? times : fromStep(times, options.firstStep);
  }
  if (options.flavour !== "diffusers") {
    const { timesteps, sigmas } = kLevels(config, options, { discardsLast: true });
    if (sigmas.at(-1) === 0) sigmas[sigmas.length - 1] = leastSigma;
    return { timesteps, sigmas, startLevel: undefined };
  }
  const hasEnd = config.finalSigmasType === "zero";
  const levels = solverLevels(config, {
    stepCount: options.stepCount,
    firstStep: options.firstStep,
    spacing: options.timestepSpacing ?? config.timestepSpacing ?? "linspace",
    kind: options.sigmas,
    final: hasEnd ? "zero" : options.sigmas === "normal" ? "table" : "repeated",
    rounds: true,
  });
  return { ...levels, startLevel: undefined };
}

function make(name: string, config: SchedulerConfig, options: MakeOptions, isB1: boolean) {
  checkLinear(name, config, { thresholding: true, clips: null });
  const isOwn = options.flavour === "diffusers";
  const order = isOwn ? solverOf(config).order : 3;
  const { timesteps, sigmas, startLevel } = levelsOf(config, options);
  const levels = Array.from(sigmas, levelOf);
  const { predictX0, lowerOrderFinal, disableCorrector } = isOwn ? config.solver : kSolver;
  const mix = predictX0 ? dataMix : noiseMix;
  const orders = Array.from(timesteps, (_, i) => {
    const left = (lowerOrderFinal ?? true) ? timesteps.length - i : order;
    return Math.min(order, left, i + 1);
  });
  const steps = Array.from(timesteps, (timestep, i): StepCoefficients => {
    const recent = (count: number, last: number) => levels.slice(last + 1 - count, last + 1);
    const next = solve({
      to: levels[i + 1]!,
      known: recent(orders[i]!, i).reverse(),
      predictX0,
      isB1,
    });
    const isCorrected = i > 0 && !disableCorrector.includes(i - 1);
    const own = isCorrected
      ? solve({
          to: levels[i]!,
          known: recent(orders[i - 1]!, i - 1).reverse(),
          corrects: true,
          predictX0,
          isB1,
        })
      : null;
    const predicted = own
      ? {
          auxiliary: next.sample * own.sample,
          modelOutputs: sum(next.modelOutputs, own.modelOutputs, next.sample),
        }
      : next;
    return {
      timestep,
      inputScale: 1,
      ...mix(config.predictionType, levels[i]!),
      latent: update(predicted),
      auxiliary: update(
        own ? { auxiliary: own.sample, modelOutputs: own.modelOutputs } : { sample: 1 },
      ),
      samplesNoise: false,
    };
  });
  // The latent of A1111's begins as noise of unit variance, whatever the first level.
  const known = options.flavour === "a1111" ? null : sigmas;
  return { steps, timesteps, sigmas: known, initNoiseSigma: 1, startLevel };
}

/** Of ComfyUI. */
const kSolver = { predictX0: true, lowerOrderFinal: true, disableCorrector: [] as number[] };

function solverOf(config: SchedulerConfig): { order: number; isB1: boolean } {
  const { type, hasOtherPredictor } = config.solver;
  const known = ["bh1", "bh2", "midpoint", "heun", "logrho"];
  const refused = hasOtherPredictor
    ? "another predictor (solver_p)"
    : type !== null && !known.includes(type) && `solver_type "${escaped(type, 60)}"`;
  if (refused) {
    throw new BasedXLError(
      "bad-model",
      `The model's scheduler_config.json asks for ${refused}, which is not supported; ` +
        "UniPC's own predictor with bh1 or bh2 is.",
    );
  }
  return { order: orderOf(config, 2), isB1: type === "bh1" };
}

interface Solve {
  to: Level;
  /** Levels of the known outputs, newest first. */
  known: readonly Level[];
  /** Whether the output at `to` is known too; it is then the first of `modelOutputs`. */
  corrects?: boolean;
  predictX0: boolean;
  isB1: boolean;
}

/** The latent at `to` from that at the newest known level and the outputs. */
function solve({ to, known, corrects = false, predictX0, isB1 }: Solve) {
  const base = known[0]!;
  const h = to.lambda - base.lambda;
  const hh = predictX0 ? -h : h;
  const scale = predictX0 ? to.alpha : to.sigma;
  const growth = Math.expm1(hh);
  const b = isB1 ? hh : growth;
  const others = known.slice(1);
  const places = others.map(({ lambda }) => (lambda - base.lambda) / h);
  const rhos = corrects ? corrector(places, hh, b) : predictor(places, hh, b);
  // x = sample·x - scale·growth·m0 - scale·b·sum_k rho_k·(m_k - m0) / place_k.
  const weights = places.map((place, k) => (-scale * b * rhos[k]!) / place);
  const own = corrects ? [-scale * b * rhos.at(-1)!] : [];
  const first = [...weights, ...own].reduce((rest, weight) => rest - weight, -scale * growth);
  return {
    sample: predictX0 ? to.sigma / base.sigma : to.alpha / base.alpha,
    modelOutputs: [...own, first, ...weights],
  };
}

/** Weights of the differences of older outputs. */
function predictor(places: readonly number[], hh: number, b: number): number[] {
  if (places.length < 2) return places.map(() => 0.5);
  return solveLinear(powers(places), moments(places.length, hh, b));
}

/** The same, and the weight of the output at the end of the step. */
function corrector(places: readonly number[], hh: number, b: number): number[] {
  if (places.length === 0) return [0.5];
  return solveLinear(powers([...places, 1]), moments(places.length + 1, hh, b));
}

const powers = (places: readonly number[]) =>
  places.map((_, power) => places.map((place) => place ** power));

/** phi_(i+1)(hh)·i! / b for i = 1, 2, ... */
function moments(count: number, hh: number, b: number): number[] {
  let factorial = 1;
  let phi = Math.expm1(hh) / hh - 1;
  return Array.from({ length: count }, (_, i) => {
    const moment = (phi * factorial) / b;
    factorial *= i + 2;
    phi = phi / hh - 1 / factorial;
    return moment;
  });
}

/** Gaussian elimination; rows are equations. The first row of `powers` is all ones. */
function solveLinear(matrix: readonly number[][], right: readonly number[]): number[] {
  const rows = matrix.map((row, i) => [...row, right[i]!]);
  const size = rows.length;
  for (let pivot = 0; pivot < size; pivot++) {
    for (let row = 0; row < size; row++) {
      if (row === pivot) continue;
      const factor = rows[row]![pivot]! / rows[pivot]![pivot]!;
      rows[row] = rows[row]!.map((value, i) => value - factor * rows[pivot]![i]!);
    }
  }
  return rows.map((row, i) => row[size]! / row[i]!);
}

/** a + factor·b, where the shorter one goes on with zeros. */
function sum(a: readonly number[], b: readonly number[], factor: number): number[] {
  const length = Math.max(a.length, b.length);
  return Array.from({ length }, (_, i) => (a[i] ?? 0) + factor * (b[i] ?? 0));
}
