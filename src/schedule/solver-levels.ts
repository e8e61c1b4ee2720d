/**
 * Timesteps and sigmas of diffusers' solvers of higher order (DPM-Solver, UniPC, DEIS): a step more
 * is spaced than taken, timesteps are whole numbers, and other spacings of sigmas cover the whole
 * of the training table.
 *
 * Source: diffusers `DPMSolverMultistepScheduler.set_timesteps`.
 */
import type { SchedulerConfig } from "../models/config.ts";
import type { SigmaKind, TimestepSpacing } from "../settings/names.ts";
import { alphasCumprod } from "./betas.ts";
import { logF32 } from "./log.ts";
import { spacedSigmas } from "./sigma-kinds.ts";
import { interpolate, sigmaTable, timestepOfSigma } from "./sigmas.ts";
import { roundHalfEven } from "./spacing.ts";

interface LevelOptions {
  stepCount: number;
  spacing: TimestepSpacing;
  kind: SigmaKind;
  /** The level after the last step: 0, the table's first, or that of the last step again. */
  final: "zero" | "table" | "repeated";
  /** Whether timesteps of Karras' and Lu's sigmas are rounded; all others are cut. */
  rounds: boolean;
  /** Below this logarithm of alpha / sigma timesteps are left out. */
  lambdaMin?: number;
}

interface SolverLevels {
  timesteps: Float32Array;
  /** One more than timesteps. */
  sigmas: Float32Array;
}

export function solverLevels(config: SchedulerConfig, options: LevelOptions): SolverLevels {
  const { kind, final, rounds } = options;
  const table = sigmaTable(config);
  let timesteps = spaced(config, options);
  let sigmas = timesteps.map((timestep) => interpolate(table, timestep));
  if (kind !== "normal") {
    const [max, min] = rangeOf(config, kind, table);
    sigmas = spacedSigmas(kind, max, min, options.stepCount);
    const round = rounds && (kind === "karras" || kind === "lu") ? roundHalfEven : Math.trunc;
    const timestepOf = timestepOfSigma(table);
    timesteps = sigmas.map((sigma) => round(timestepOf(sigma)));
  }
  const last = { zero: 0, table: table[0]!, repeated: sigmas.at(-1)! }[final];
  return {
    timesteps: Float32Array.from(timesteps),
    sigmas: Float32Array.of(...sigmas, last),
  };
}

// --- internal ---

function rangeOf(config: SchedulerConfig, kind: SigmaKind, table: Float32Array) {
  const [max, min] = [table.at(-1)!, table[0]!];
  if (kind === "lu") return [Math.exp(logF32(max)), Math.exp(logF32(min))] as const;
  return [config.sigmaMax ?? max, config.sigmaMin ?? min] as const;
}

function spaced(config: SchedulerConfig, options: LevelOptions): number[] {
  const { stepCount, spacing, lambdaMin = Number.NEGATIVE_INFINITY } = options;
  const { trainTimesteps, stepsOffset } = config;
  const count = trainTimesteps - clippedCount(config, lambdaMin);
  const indices = Array.from({ length: stepCount }, (_, i) => i);
  switch (spacing) {
    case "linspace": {
      const step = (count - 1) / stepCount;
      return indices.map((i) => (i === 0 ? count - 1 : roundHalfEven((stepCount - i) * step)));
    }
    case "leading": {
      const step = Math.floor(count / (stepCount + 1));
      return indices.map((i) => (stepCount - i) * step + stepsOffset);
    }
    case "trailing": {
      const step = trainTimesteps / stepCount;
      const places = indices.map((i) => count + i * (count - step - count));
      return places.filter((place) => place > 0).map((place) => roundHalfEven(place) - 1);
    }
  }
}

/** How many timesteps have a logarithm of alpha / sigma below `lambdaMin`. */
function clippedCount(config: SchedulerConfig, lambdaMin: number): number {
  if (lambdaMin === Number.NEGATIVE_INFINITY) return 0;
  const alphas = alphasCumprod(config);
  if (config.rescaleBetasZeroSnr) alphas[alphas.length - 1] = 2 ** -24;
  return alphas.filter((alpha) => Math.log(alpha / (1 - alpha)) / 2 < lambdaMin).length;
}
