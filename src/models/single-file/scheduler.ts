/**
 * The scheduler of a checkpoint in one file, which has none: SDXL's own, as diffusers takes it.
 * With zero terminal SNR the steps are trailing: leading ones never begin in pure noise, which such
 * a model was trained for.
 */
import type { PredictionType } from "../../settings/names.ts";
import { parseSchedulerConfig, type SchedulerConfig } from "../config.ts";

/** What the checkpoint's markers or its header say. */
interface Training {
  predictionType: PredictionType;
  rescaleBetasZeroSnr: boolean;
}

export function singleFileScheduler(path: string, training: Training): SchedulerConfig {
  return parseSchedulerConfig(path, {
    _class_name: "EulerDiscreteScheduler",
    beta_start: 0.00085,
    beta_end: 0.012,
    beta_schedule: "scaled_linear",
    num_train_timesteps: 1000,
    steps_offset: 1,
    timestep_spacing: training.rescaleBetasZeroSnr ? "trailing" : "leading",
    prediction_type: training.predictionType,
    rescale_betas_zero_snr: training.rescaleBetasZeroSnr,
  });
}
