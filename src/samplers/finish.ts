/**
 * What holds for every sampler's steps: the scale of the first and of fresh noise, and the rounding
 * of timesteps.
 */
import type { SchedulerConfig } from "./config.ts";
import { kModel } from "./k-model.ts";
import { interpolate, sigmaTable } from "./sigma-table.ts";
import type { MakeOptions, Steps, Update } from "./types.ts";

type FinishOptions = Pick<MakeOptions, "flavour" | "timestepRounding" | "firstSigma" | "sNoise">;

export function finished(steps: Steps, config: SchedulerConfig, options: FinishOptions): Steps {
  const { sNoise = 1, timestepRounding: rounding = "auto", flavour } = options;
  const initNoiseSigma = firstNoise(steps, config, options);
  const scaled = sNoise === 1 ? steps : withNoise(steps, sNoise);
  // Those of k-diffusion have rounded already: their model may be a distilled one.
  const isRounded = rounding === "auto" || flavour !== "diffusers" || scaled.sigmas === null;
  return { ...(isRounded ? scaled : withTimesteps(scaled, config, rounding)), initNoiseSigma };
}

// --- internal ---

function firstNoise(steps: Steps, config: SchedulerConfig, options: FinishOptions): number {
  const { firstSigma = "auto", flavour } = options;
  const table = sigmaTable(config);
  const sigma = steps.sigmas?.[0] ?? interpolate(table, steps.timesteps[0]!);
  const total = Math.sqrt(1 + sigma * sigma);
  // Latents of unit variance are those of x0 + sigma·noise over it.
  const unit = steps.steps[0]!.inputScale === 1 ? 1 / total : 1;
  if (firstSigma !== "auto") return unit * (firstSigma === "sqrt" ? total : sigma);
  if (flavour === "diffusers" || steps.sigmas === null) return steps.initNoiseSigma;
  const isWhole = sigma >= table.at(-1)! * (1 - 1e-5);
  return unit * (flavour === "kdiffusion" && isWhole ? total : sigma);
}

function withNoise(steps: Steps, factor: number): Steps {
  const scaled = (update: Update) => ({ ...update, noise: factor * update.noise });
  return {
    ...steps,
    steps: steps.steps.map((step) => ({
      ...step,
      latent: scaled(step.latent),
      auxiliary: step.auxiliary && scaled(step.auxiliary),
    })),
  };
}

function withTimesteps(steps: Steps, config: SchedulerConfig, rounding: "none" | "nearest"): Steps {
  const { timestepOf } = kModel(config, { flavour: "diffusers", rounding, isDistilled: false });
  const timesteps = steps.timesteps.map((_, i) => timestepOf(steps.sigmas![i]!));
  return {
    ...steps,
    timesteps,
    steps: steps.steps.map((step, i) => ({ ...step, timestep: timesteps[i]! })),
  };
}
