/**
 * DPM-Solver++ over the outputs of the last two or three steps, without noise or with (SDE).
 * Equal to diffusers' DPMSolverMultistepScheduler; noise is drawn in every step, also where its
 * coefficient is 0.
 */

import { checkLinear } from "./clipping.ts";
import { levelOf, update } from "./coefficients.ts";
import type { SchedulerConfig } from "./config.ts";
import {
  type Algorithm,
  algorithmOf,
  checkAlgorithm,
  multistepUpdate,
  orderOf,
  solverMix,
  solverTypeOf,
} from "./dpm-solver.ts";
import { solverLevels } from "./solver-levels.ts";
import type { MakeOptions, Sampler, StepCoefficients } from "./types.ts";

const follows = ["sigmas", "lu", "timestepSpacing"] as const;
const isSde = (config: SchedulerConfig) => algorithmOf(config).startsWith("sde-");

export const dpmpp2m: Sampler = {
  follows,
  isOf: (config) => orderOf(config, 2) < 3 && !isSde(config),
  make: (config, options) =>
    make("dpmpp_2m", config, options, {
      algorithm: algorithmOf(config).replace("sde-", "") as Algorithm,
      order: Math.min(orderOf(config, 2), 2),
    }),
};

export const dpmpp2mSde: Sampler = {
  follows,
  isOf: (config) => orderOf(config, 2) < 3 && isSde(config),
  make: (config, options) =>
    make("dpmpp_2m_sde", config, options, {
      algorithm: `sde-${algorithmOf(config).replace("sde-", "")}` as Algorithm,
      order: Math.min(orderOf(config, 2), 2),
    }),
};

/** With noise only where the config of its own class asks for that. */
export const dpmpp3m: Sampler = {
  follows,
  isOf: (config) => orderOf(config, 2) === 3,
  make(config, options) {
    const isOwn = config.solver.order === 3;
    const algorithm = isOwn ? algorithmOf(config) : "dpmsolver++";
    return make("dpmpp_3m", config, options, { algorithm, order: 3 });
  },
};

// --- internal ---

function make(
  name: string,
  config: SchedulerConfig,
  options: MakeOptions,
  { algorithm, order }: { algorithm: Algorithm; order: number },
) {
  checkLinear(name, config, { thresholding: true, clips: null });
  checkAlgorithm(name, config, algorithm, order);
  const type = solverTypeOf(config);
  const { timesteps, sigmas } = solverLevels(config, {
    stepCount: options.stepCount,
    spacing: options.timestepSpacing ?? config.timestepSpacing ?? "linspace",
    kind: options.sigmas,
    final: config.finalSigmasType === "zero" ? "zero" : "table",
    rounds: config.betaSchedule !== "squaredcos_cap_v2",
    lambdaMin: config.solver.lambdaMinClipped,
  });
  const levels = Array.from(sigmas, levelOf);
  const orders = ordersOf(config, timesteps.length, order);
  const steps = Array.from(timesteps, (timestep, i): StepCoefficients => {
    const known = levels.slice(0, i + 1).reverse();
    return {
      timestep,
      inputScale: 1,
      ...solverMix(algorithm, config.predictionType, levels[i]!),
      latent: update(multistepUpdate(algorithm, type, levels[i + 1]!, known.slice(0, orders[i]))),
      auxiliary: null,
      samplesNoise: algorithm.startsWith("sde-"),
    };
  });
  return { steps, timesteps, sigmas, initNoiseSigma: 1 };
}

/** The order of each step: low at the start, and at the end where the config says so. */
function ordersOf(config: SchedulerConfig, count: number, order: number): number[] {
  const { eulerAtFinal, lowerOrderFinal } = config.solver;
  const isLowered = (lowerOrderFinal ?? true) && count < 15;
  const endsLow = eulerAtFinal || isLowered || config.finalSigmasType === "zero";
  return Array.from({ length: count }, (_, i) => {
    if (i === count - 1 && endsLow) return 1;
    if (i === count - 2 && isLowered) return Math.min(order, i + 1, 2);
    return Math.min(order, i + 1);
  });
}
