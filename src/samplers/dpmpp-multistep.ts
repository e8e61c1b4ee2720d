/**
 * DPM-Solver++ over the outputs of the last two or three steps, without noise or with (SDE).
 * Equal to diffusers' DPMSolverMultistepScheduler, where noise is drawn in every step, also where
 * its coefficient is 0, and to k-diffusion's sample_dpmpp_2m, sample_dpmpp_2m_sde and
 * sample_dpmpp_3m_sde.
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
import { kLevels } from "./k-levels.ts";
import { solverLevels } from "./solver-levels.ts";
import type { MakeOptions, Sampler, StepCoefficients } from "./types.ts";

const follows = ["sigmas", "lu", "timestepSpacing"] as const;
const isSde = (config: SchedulerConfig) => algorithmOf(config).startsWith("sde-");

export const dpmpp2m: Sampler = {
  follows,
  hasKForm: true,
  isOf: (config) => orderOf(config, 2) < 3 && !isSde(config),
  make(config, options) {
    const own = algorithmOf(config).replace("sde-", "") as Algorithm;
    const isOwn = options.flavour === "diffusers";
    return make("dpmpp_2m", config, options, {
      algorithm: isOwn ? own : "dpmsolver++",
      order: isOwn ? Math.min(orderOf(config, 2), 2) : 2,
      type: isOwn ? solverTypeOf(config) : "midpoint",
    });
  },
};

export const dpmpp2mSde: Sampler = {
  follows: [...follows, "eta"],
  hasKForm: true,
  isBrownian: true,
  isOf: (config) => orderOf(config, 2) < 3 && isSde(config),
  make(config, options) {
    const own = `sde-${algorithmOf(config).replace("sde-", "")}` as Algorithm;
    const isOwn = options.flavour === "diffusers";
    return make("dpmpp_2m_sde", config, options, {
      algorithm: isOwn ? own : "sde-dpmsolver++",
      order: isOwn ? Math.min(orderOf(config, 2), 2) : 2,
      type: isOwn ? solverTypeOf(config) : "midpoint",
    });
  },
};

export const dpmpp2mSdeHeun: Sampler = {
  follows: [...follows, "eta"],
  hasKForm: true,
  isBrownian: true,
  make: (config, options) =>
    make("dpmpp_2m_sde_heun", config, options, {
      ...{ algorithm: "sde-dpmsolver++", order: 2, type: "heun" },
    }),
};

/** With noise only where the config of its own class asks for that. */
export const dpmpp3m: Sampler = {
  follows,
  hasKForm: false,
  isOf: (config) => orderOf(config, 2) === 3,
  make(config, options) {
    const isOwn = config.solver.order === 3;
    const algorithm = isOwn ? algorithmOf(config) : "dpmsolver++";
    return make("dpmpp_3m", config, options, { algorithm, order: 3, type: solverTypeOf(config) });
  },
};

/** k-diffusion's alone: its third order is another than that of diffusers with noise. */
export const dpmpp3mSde: Sampler = {
  follows: [...follows, "eta"],
  hasKForm: true,
  isBrownian: true,
  make: (config, options) =>
    make("dpmpp_3m_sde", config, options, {
      ...{ algorithm: "sde-dpmsolver++", order: 3, type: "heun", isKDiffusion: true },
    }),
};

// --- internal ---

interface Solver {
  algorithm: Algorithm;
  order: number;
  type: "midpoint" | "heun";
  isKDiffusion?: boolean;
}

function make(
  name: string,
  config: SchedulerConfig,
  options: MakeOptions,
  { algorithm, order, type, isKDiffusion = false }: Solver,
) {
  checkLinear(name, config, { thresholding: true, clips: null });
  const isOwn = options.flavour === "diffusers";
  if (isOwn) checkAlgorithm(name, config, algorithm, order);
  const { timesteps, sigmas } = isOwn
    ? solverLevels(config, {
        stepCount: options.stepCount,
        firstStep: options.firstStep,
        spacing: options.timestepSpacing ?? config.timestepSpacing ?? "linspace",
        kind: options.sigmas,
        final: config.finalSigmasType === "zero" ? "zero" : "table",
        rounds: config.betaSchedule !== "squaredcos_cap_v2",
        lambdaMin: config.solver.lambdaMinClipped,
      })
    : kLevels(config, options, { discardsLast: order === 3 && options.flavour === "a1111" });
  const levels = Array.from(sigmas, levelOf);
  const orders = isOwn
    ? ordersOf(config, timesteps.length, order, options.firstStep)
    : Array.from(timesteps, (_, i) => (sigmas[i + 1] === 0 ? 1 : Math.min(order, i + 1)));
  const { eta = 1 } = options;
  const isNoisy = algorithm.startsWith("sde-") && eta > 0;
  const steps = Array.from(timesteps, (timestep, i): StepCoefficients => {
    const known = levels
      .slice(0, i + 1)
      .reverse()
      .slice(0, orders[i]);
    const next = multistepUpdate(algorithm, type, levels[i + 1]!, known, { eta, isKDiffusion });
    return {
      timestep,
      inputScale: 1,
      ...solverMix(algorithm, config.predictionType, levels[i]!),
      latent: update(next),
      auxiliary: null,
      samplesNoise: isNoisy && (isOwn || sigmas[i + 1]! > 0),
      ...(isNoisy && sigmas[i + 1]! > 0 && { noiseFrom: sigmas[i]!, noiseTo: sigmas[i + 1]! }),
    };
  });
  return { steps, timesteps, sigmas, initNoiseSigma: 1 };
}

/** The order of each step: low at the start, and at the end where the config says so. */
function ordersOf(config: SchedulerConfig, count: number, order: number, firstStep = 0): number[] {
  const { eulerAtFinal, lowerOrderFinal } = config.solver;
  const isLowered = (lowerOrderFinal ?? true) && firstStep + count < 15;
  const endsLow = eulerAtFinal || isLowered || config.finalSigmasType === "zero";
  return Array.from({ length: count }, (_, i) => {
    if (i === count - 1 && endsLow) return 1;
    if (i === count - 2 && isLowered) return Math.min(order, i + 1, 2);
    return Math.min(order, i + 1);
  });
}
