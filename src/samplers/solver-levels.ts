/**
 * Timesteps and sigmas of diffusers' solvers of higher order (DPM-Solver, UniPC, DEIS): a step more
 * is spaced than taken, timesteps are whole numbers, and other spacings of sigmas cover the whole
 * of the training table.
 *
 * Source: diffusers `DPMSolverMultistepScheduler.set_timesteps`.
 */
import { alphasCumprod } from "./betas.ts";
import type { SchedulerConfig } from "./config.ts";
import { explicitLevels } from "./explicit-levels.ts";
import { fromStep } from "./first-step.ts";
import { logF32 } from "./log.ts";
import type { RangeKind, TimestepSpacing } from "./names.ts";
import { spacedSigmas } from "./sigma-kinds.ts";
import { interpolate, sigmaTable, timestepOfSigma } from "./sigma-table.ts";
import { roundHalfEven } from "./spacing.ts";
import type { SigmaChoice } from "./types.ts";

interface LevelOptions {
  stepCount: number;
  spacing: TimestepSpacing;
  kind: SigmaChoice;
  /** The level after the last step: 0, the table's first, or that of the last step again. */
  final: "zero" | "table" | "repeated";
  /** Whether timesteps of Karras' and Lu's sigmas are rounded; all others are cut. */
  rounds: boolean;
  firstStep: number | undefined;
  /** Below this logarithm of alpha / sigma timesteps are left out. */
  lambdaMin?: number;
}

interface SolverLevels {
  timesteps: Float32Array;
  /** One more than timesteps. */
  sigmas: Float32Array;
}

export function solverLevels(config: SchedulerConfig, options: LevelOptions): SolverLevels {
  const { kind, final } = options;
  const table = sigmaTable(config);
  const explicit = explicitLevels(kind, config, table, options.stepCount);
  const levels = explicit ?? spacedLevels(config, options, table);
  const timesteps =
    typeof kind === "object" ? levels.timesteps.map(roundHalfEven) : levels.timesteps;
  const { sigmas } = levels;
  const least = Math.min(table[0]!, sigmas.at(-1)!);
  const last = explicit?.final ?? { zero: 0, table: least, repeated: sigmas.at(-1)! }[final];
  const whole = {
    timesteps: Float32Array.from(timesteps),
    sigmas: Float32Array.of(...sigmas, last),
  };
  return fromStep(whole, options.firstStep);
}

// --- internal ---

function spacedLevels(config: SchedulerConfig, options: LevelOptions, table: Float32Array) {
  const timesteps = spaced(config, options);
  const sigmas = timesteps.map((timestep) => interpolate(table, timestep));
  if (options.kind === "normal") return { timesteps, sigmas };
  const kind = options.kind as RangeKind;
  const [max, min] = rangeOf(config, kind, table);
  const others = spacedSigmas(kind, max, min, options.stepCount);
  const rounds = options.rounds && (kind === "karras" || kind === "lu");
  const exact = others.map(timestepOfSigma(table));
  return { timesteps: exact.map(rounds ? roundHalfEven : Math.trunc), sigmas: others };
}

function rangeOf(config: SchedulerConfig, kind: RangeKind, table: Float32Array) {
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
