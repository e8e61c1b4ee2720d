/**
 * One update of DPM-Solver and DPM-Solver++, with noise (SDE) or without, of order 1 to 3, as
 * coefficients of the latent and of the last model outputs.
 *
 * Source: arXiv 2206.00927 and 2211.01095; diffusers DPMSolverMultistepScheduler and
 * DPMSolverSinglestepScheduler; k-diffusion sample_dpmpp_2m_sde and sample_dpmpp_3m_sde.
 */
import { BasedXLError, escaped } from "../errors.ts";
import { dataMix, type Level, noiseMix } from "./coefficients.ts";
import type { SchedulerConfig } from "./config.ts";
import type { PredictionType } from "./names.ts";

export const algorithms = ["dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"] as const;
export type Algorithm = (typeof algorithms)[number];

/** The algorithm of a config, or "dpmsolver++" where it is that of another class. */
export function algorithmOf(config: SchedulerConfig): Algorithm {
  const { algorithm } = config.solver;
  if (algorithm === null || algorithm === "deis") return "dpmsolver++";
  const known = algorithms.find((name) => name === algorithm);
  return known ?? refuse(`algorithm_type "${escaped(algorithm, 60)}"`, algorithms.join(", "));
}

/** How the second order is reached. */
export function solverTypeOf(config: SchedulerConfig): "midpoint" | "heun" {
  const { type } = config.solver;
  // Those of other classes.
  if (type === null || ["logrho", "bh1", "bh2"].includes(type)) return "midpoint";
  if (type === "midpoint" || type === "heun") return type;
  return refuse(`solver_type "${escaped(type, 60)}"`, "midpoint and heun");
}

/** The order of a config, at most 3. */
export function orderOf(config: SchedulerConfig, fallback: number): number {
  const { order } = config.solver;
  if (order === null) return fallback;
  return order <= 3 ? order : refuse(`solver_order ${order}`, "orders 1 to 3");
}

/** Refuses combinations that have no formula. */
export function checkAlgorithm(
  sampler: string,
  config: SchedulerConfig,
  algorithm: Algorithm,
  order: number,
): void {
  const isPlusPlus = algorithm.endsWith("++");
  if (!isPlusPlus && config.finalSigmasType === "zero") {
    refuse(`algorithm_type "${algorithm}" with final_sigmas_type "zero"`, `"sigma_min"`);
  }
  if (algorithm === "sde-dpmsolver" && (order === 3 || sampler === "dpmpp_2s")) {
    refuse(`algorithm_type "${algorithm}" in ${sampler}`, `"sde-dpmsolver++"`);
  }
}

/** What of the model's output the updates combine. */
export function solverMix(algorithm: Algorithm, prediction: PredictionType, level: Level) {
  return algorithm.endsWith("++") ? dataMix(prediction, level) : noiseMix(prediction, level);
}

interface SolverUpdate {
  sample: number;
  /** Newest first. */
  modelOutputs: number[];
  noise: number;
}

/** Of the updates with noise. */
interface NoiseOptions {
  /** How much of the noise is fresh, 0 to 1. */
  eta: number;
  /** Whether the third order is k-diffusion's: diffusers' has the sign of a half turned. */
  isKDiffusion: boolean;
}

/** From the newest level to `to`, by the outputs at `levels`, newest first. */
export function multistepUpdate(
  algorithm: Algorithm,
  type: "midpoint" | "heun",
  to: Level,
  levels: readonly Level[],
  options: NoiseOptions = { eta: 1, isKDiffusion: false },
): SolverUpdate {
  const [s0, s1, s2] = levels as [Level, Level?, Level?];
  const { h, sample, noise, first, half, second, third } = terms(algorithm, to, s0, options);
  if (!s1) return { sample, modelOutputs: [first], noise };
  const r0 = (s0.lambda - s1.lambda) / h;
  if (!s2) {
    const slope = (type === "midpoint" ? half : second) / r0;
    return { sample, modelOutputs: [first + slope, -slope], noise };
  }
  const r1 = (s1.lambda - s2.lambda) / h;
  // D1 = D1_0 + r0 / (r0 + r1) * (D1_0 - D1_1), D2 = (D1_0 - D1_1) / (r0 + r1).
  const ofBoth = (second * r0 + third) / (r0 + r1);
  const newer = (second + ofBoth) / r0;
  const older = -ofBoth / r1;
  return { sample, modelOutputs: [first + newer, older - newer, -older], noise };
}

/** From the oldest of `levels` to `to`: the others lie between, at newer outputs. */
export function singlestepUpdate(
  algorithm: Algorithm,
  type: "midpoint" | "heun",
  to: Level,
  levels: readonly Level[],
): SolverUpdate {
  const base = levels.at(-1)!;
  const { h, sample, noise, first, half, second, third } = terms(algorithm, to, base);
  if (levels.length === 1) return { sample, modelOutputs: [first], noise };
  const r0 = (levels[0]!.lambda - base.lambda) / h;
  if (levels.length === 2) {
    const slope = (type === "midpoint" ? half : second) / r0;
    return { sample, modelOutputs: [slope, first - slope], noise };
  }
  const r1 = (levels[1]!.lambda - base.lambda) / h;
  // D1 = (r0 * D1_0 - r1 * D1_1) / (r0 - r1), D2 = 2 * (D1_1 - D1_0) / (r0 - r1).
  const isMidpoint = type === "midpoint";
  const newest = isMidpoint ? second / r0 : (2 * third - r1 * second) / (r0 - r1) / r0;
  const middle = isMidpoint ? 0 : (r0 * second - 2 * third) / (r0 - r1) / r1;
  return { sample, modelOutputs: [newest, middle, first - newest - middle], noise };
}

// --- internal ---

/** The factors of the latent, of noise, and of differences of the model outputs. */
function terms(
  algorithm: Algorithm,
  to: Level,
  from: Level,
  { eta, isKDiffusion }: NoiseOptions = { eta: 1, isKDiffusion: false },
) {
  const h = to.lambda - from.lambda;
  const { alpha, sigma } = to;
  switch (algorithm === "sde-dpmsolver++" && eta === 0 ? "dpmsolver++" : algorithm) {
    case "dpmsolver++": {
      const e = Math.expm1(-h);
      return {
        h,
        sample: sigma / from.sigma,
        noise: 0,
        first: -alpha * e,
        half: -0.5 * alpha * e,
        second: alpha * (e / h + 1),
        third: -alpha * ((e + h) / h ** 2 - 0.5),
      };
    }
    case "sde-dpmsolver++": {
      const width = (1 + eta) * h;
      const e = -Math.expm1(-width);
      return {
        h,
        sample: (sigma / from.sigma) * Math.exp(-eta * h),
        noise: sigma * Math.sqrt(-Math.expm1(-2 * eta * h)),
        first: alpha * e,
        half: 0.5 * alpha * e,
        second: alpha * (e / -width + 1),
        third: alpha * ((e - width) / width ** 2 + (isKDiffusion ? 0.5 : -0.5)),
      };
    }
    case "dpmsolver":
    case "sde-dpmsolver": {
      const e = Math.expm1(h);
      const factor = algorithm === "dpmsolver" ? 1 : 2;
      return {
        h,
        sample: alpha / from.alpha,
        noise: algorithm === "dpmsolver" ? 0 : sigma * Math.sqrt(Math.expm1(2 * h)),
        first: -factor * sigma * e,
        half: -0.5 * factor * sigma * e,
        second: -factor * sigma * (e / h - 1),
        third: -sigma * ((e - h) / h ** 2 - 0.5),
      };
    }
  }
}

function refuse(what: string, supported: string): never {
  throw new BasedXLError(
    "bad-model",
    `The model's scheduler_config.json asks for ${what}, which is not supported; ${supported} ` +
      "is; or name another scheduler.",
  );
}
