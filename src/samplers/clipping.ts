/**
 * Refuses what no linear combination can do: clipping of the predicted clean latent.
 */
import { BasedXLError } from "../errors.ts";
import type { SchedulerConfig } from "./config.ts";

interface Clipping {
  /** Whether the sampler's class reads "thresholding". */
  thresholding: boolean;
  /** Whether it clips where the config does not say; null: it does not read "clip_sample". */
  clips?: boolean | null;
}

/** Throws "bad-model" where `config` asks `sampler` to clip or to threshold. */
export function checkLinear(sampler: string, config: SchedulerConfig, reads: Clipping): void {
  const { thresholding, clips = false } = reads;
  const isClipped = clips !== null && (config.clipSample ?? clips);
  if (!isClipped && !(thresholding && config.thresholding)) return;
  throw new BasedXLError(
    "bad-model",
    `The model's scheduler_config.json has ${isClipped ? "clip_sample" : "thresholding"} true, ` +
      `which ${sampler} does not support: latents have no fixed range. Set it to false, or use ` +
      "euler.",
  );
}
