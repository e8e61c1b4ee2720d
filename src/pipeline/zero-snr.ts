/**
 * Warnings about noise levels that end in pure noise (zero terminal SNR, arXiv 2305.08891): steps
 * that never begin there, and models that predict noise, which says nothing about an image there.
 */
import type { SchedulerConfig } from "../models/config.ts";
import type { Schedule } from "../schedule.ts";
import type { Naming } from "../settings/values.ts";

export function zeroSnrWarnings(
  config: SchedulerConfig,
  { timesteps }: Pick<Schedule, "timesteps">,
  naming: Naming,
): string[] {
  if (!config.rescaleBetasZeroSnr) return [];
  const warnings: string[] = [];
  if (config.predictionType === "epsilon") {
    warnings.push(
      "The noise levels end in pure noise, where a prediction of the noise says nothing about " +
        `the image: ${naming("predictionType")} v_prediction is what such models have.`,
    );
  }
  const last = config.trainTimesteps - 1;
  const first = timesteps[0]!;
  if (first < last) {
    warnings.push(
      `The noise levels end in pure noise at timestep ${last}, but the steps begin at ` +
        `${Number(first.toFixed(1))}: ${naming("timestepSpacing")} trailing begins there.`,
    );
  }
  return warnings;
}
