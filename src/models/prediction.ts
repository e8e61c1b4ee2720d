/**
 * What a user says about a model's training, where its files say nothing or something wrong.
 */
import type { PredictionType } from "../settings/names.ts";
import { checkSetting, type Naming } from "../settings/values.ts";
import type { SchedulerConfig } from "./config.ts";

export interface PredictionOptions {
  /** What the UNet predicts. Default "auto": as the model's config says. */
  predictionType?: "auto" | PredictionType | undefined;
  /** Whether the training noise levels end in pure noise. Default: as the model's config says. */
  rescaleBetasZeroSnr?: boolean | undefined;
}

/** `model` with these in the place of its own. Throws "bad-option" for other values. */
export function withPrediction<M extends { scheduler: SchedulerConfig }>(
  model: M,
  { predictionType = "auto", rescaleBetasZeroSnr: isZeroSnr }: PredictionOptions,
  naming: Naming,
): M {
  const asked = checkSetting("predictionType", predictionType, naming);
  const own = model.scheduler;
  const rescaleBetasZeroSnr =
    isZeroSnr === undefined
      ? own.rescaleBetasZeroSnr
      : checkSetting("rescaleBetasZeroSnr", isZeroSnr, naming);
  const type = asked === "auto" ? own.predictionType : asked;
  return { ...model, scheduler: { ...own, predictionType: type, rescaleBetasZeroSnr } };
}
