/**
 * DPM-Solver-2 of k-diffusion: the derivative at the (geometric) middle of the step takes the whole
 * of it. Two evaluations per step, one in the last; ends at sigma 0. The ancestral one goes below
 * the next level and adds fresh noise up to it.
 *
 * Source: arXiv 2206.00364, algorithm 2, without churn; diffusers KDPM2DiscreteScheduler and
 * KDPM2AncestralDiscreteScheduler.
 */

import { derivativeMix, update } from "./coefficients.ts";
import type { SchedulerConfig } from "./config.ts";
import { sigmaTable, timestepOfSigma } from "./sigma-table.ts";
import { sigmaSchedule } from "./sigmas.ts";
import type { MakeOptions, Sampler, StepCoefficients } from "./types.ts";

export const dpm2: Sampler = {
  follows: ["sigmas", "timestepSpacing"],
  make: (config, options) => make(config, options, false),
};

export const dpm2Ancestral: Sampler = {
  follows: ["sigmas", "timestepSpacing"],
  make: (config, options) => make(config, options, true),
};

// --- internal ---

function make(config: SchedulerConfig, options: MakeOptions, isAncestral: boolean) {
  const { sigmas, timesteps, initNoiseSigma } = sigmaSchedule(config, {
    stepCount: options.stepCount,
    spacing: options.timestepSpacing ?? config.timestepSpacing ?? "linspace",
    kind: options.sigmas,
    finalSigma: "zero",
    roundsKarras: true,
  });
  const timestepOf = timestepOfSigma(sigmaTable(config));
  const steps: StepCoefficients[] = [];
  const visited: number[] = [];
  const evaluate = (sigma: number, timestep: number) => {
    visited.push(sigma);
    return {
      timestep: Math.fround(timestep),
      inputScale: 1 / Math.sqrt(sigma * sigma + 1),
      ...derivativeMix(config.predictionType, sigma),
    };
  };
  const count = timesteps.length;
  for (let i = 0; i < count; i++) {
    const from = sigmas[i]!;
    const to = sigmas[i + 1]!;
    const isLast = i + 1 === count;
    // to² = up² + down², with up² = to²·(from² - to²) / from²; these forms do not cancel.
    const down = isAncestral ? (to * to) / from : to;
    const up = isAncestral ? (to / from) * Math.sqrt((from - to) * (from + to)) : 0;
    const middle = isLast ? to : Math.sqrt(from * down);
    steps.push({
      ...evaluate(from, timesteps[i]!),
      latent: update({ sample: 1, modelOutputs: [middle - from] }),
      auxiliary: update({ sample: 1 }),
      samplesNoise: false,
    });
    if (isLast) break;
    steps.push({
      ...evaluate(middle, timestepOf(middle)),
      latent: update({ auxiliary: 1, modelOutputs: [down - from], noise: up }),
      auxiliary: null,
      samplesNoise: isAncestral,
    });
  }
  return {
    steps,
    timesteps: Float32Array.from(steps, ({ timestep }) => timestep),
    sigmas: Float32Array.of(...visited, sigmas[count]!),
    initNoiseSigma,
  };
}
