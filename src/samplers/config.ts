/**
 * What a scheduler_config.json says, as samplers read it. `models/config-scheduler.ts` parses it.
 */
import type { PredictionType, SigmaKind, TimestepSpacing } from "./names.ts";

export interface SchedulerConfig {
  /** Of model_index.json; of this file where that one names none. */
  className: string;
  betaStart: number;
  betaEnd: number;
  betaSchedule: "linear" | "scaled_linear" | "squaredcos_cap_v2";
  /** Betas given one by one; they replace the three keys above. */
  trainedBetas: number[] | null;
  trainTimesteps: number;
  predictionType: PredictionType;
  timestepSpacing: TimestepSpacing | null;
  stepsOffset: number;
  sigmaKind: SigmaKind;
  sigmaMin: number | null;
  sigmaMax: number | null;
  finalSigmasType: "zero" | "sigma_min";
  interpolationType: string;
  timestepType: string;
  setAlphaToOne: boolean | null;
  clipSample: boolean | null;
  rescaleBetasZeroSnr: boolean;
  thresholding: boolean;
  varianceType: string | null;
  solver: SolverConfig;
}

/** Settings of single classes: solvers of higher order, LCM and TCD, PNDM. */
export interface SolverConfig {
  order: number | null;
  /** "dpmsolver++", ...; each sampler checks its own. */
  algorithm: string | null;
  /** "midpoint", "heun", "bh2", ... */
  type: string | null;
  lowerOrderFinal: boolean | null;
  eulerAtFinal: boolean;
  /** Below this half log of the signal-to-noise ratio, DPM-Solver leaves timesteps out. */
  lambdaMinClipped: number;
  predictX0: boolean;
  /** Steps without UniPC's corrector, the first 0. */
  disableCorrector: number[];
  hasOtherPredictor: boolean;
  skipPrkSteps: boolean | null;
  /** Steps of the teacher that LCM and TCD choose theirs from. */
  originalSteps: number;
  timestepScaling: number;
}
