/**
 * DPM-Solver++ in groups of steps: each group starts anew and ends with an update of second or
 * third order from its start. Equal to diffusers' DPMSolverSinglestepScheduler, whose timesteps are
 * always spaced evenly.
 */
import { checkLinear } from "./clipping.ts";
import { levelOf, update } from "./coefficients.ts";
import type { SchedulerConfig } from "./config.ts";
import {
  algorithmOf,
  checkAlgorithm,
  orderOf,
  singlestepUpdate,
  solverMix,
  solverTypeOf,
} from "./dpm-solver.ts";
import { solverLevels } from "./solver-levels.ts";
import type { Sampler, StepCoefficients } from "./types.ts";

export const dpmpp2s: Sampler = {
  follows: ["sigmas"],
  hasKForm: false,
  make(config, options) {
    const isOwn = config.className === "DPMSolverSinglestepScheduler";
    const order = isOwn ? orderOf(config, 2) : 2;
    const algorithm = isOwn ? algorithmOf(config) : "dpmsolver++";
    checkLinear("dpmpp_2s", config, { thresholding: true, clips: null });
    checkAlgorithm("dpmpp_2s", config, algorithm, order);
    const type = solverTypeOf(config);
    const { timesteps, sigmas } = solverLevels(config, {
      stepCount: options.stepCount,
      firstStep: options.firstStep,
      spacing: "linspace",
      kind: options.sigmas,
      final: config.finalSigmasType === "zero" ? "zero" : "table",
      rounds: true,
      lambdaMin: config.solver.lambdaMinClipped,
    });
    const levels = Array.from(sigmas, levelOf);
    const { firstStep = 0 } = options;
    const whole = ordersOf(config, firstStep + timesteps.length, order);
    // A group that began before the first step begins there.
    const orders = whole.slice(firstStep).map((each, i) => Math.min(each, i + 1));
    const steps = Array.from(timesteps, (timestep, i): StepCoefficients => {
      const group = levels.slice(i + 1 - orders[i]!, i + 1).reverse();
      const { sample, ...others } = singlestepUpdate(algorithm, type, levels[i + 1]!, group);
      const starts = group.length === 1;
      return {
        timestep,
        inputScale: 1,
        ...solverMix(algorithm, config.predictionType, levels[i]!),
        latent: update(starts ? { sample, ...others } : { auxiliary: sample, ...others }),
        // The latent at the start of the group.
        auxiliary: starts ? update({ sample: 1 }) : null,
        samplesNoise: algorithm === "sde-dpmsolver++",
      };
    });
    return { steps, timesteps, sigmas, initNoiseSigma: 1 };
  },
};

// --- internal ---

/** 1, 2, 1, 2, ... or 1, 2, 3, 1, ...; what is left at the end in steps of lower order. */
function ordersOf(config: SchedulerConfig, count: number, order: number): number[] {
  const endsLow =
    (config.solver.lowerOrderFinal ?? false) ||
    config.finalSigmasType === "zero" ||
    count % order !== 0;
  const orders = Array.from({ length: count }, (_, i) => (i % order) + 1);
  if (!endsLow) return orders;
  // A whole group at the end is cut short too.
  if (order === 2 && count % 2 === 0) orders[count - 1] = 1;
  if (order === 3 && count % 3 === 0) orders.splice(-2, 2, 2, 1);
  if (config.finalSigmasType === "zero") orders[count - 1] = 1;
  return orders;
}
