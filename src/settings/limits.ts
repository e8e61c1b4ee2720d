/**
 * The range of every numeric flag, in one place, so that checks and help cannot differ.
 * What a model narrows further (sizes, steps) is checked once the model is known.
 */
import { imageCountMax, rankCountMax, stepCountMax } from "../native/abi.ts";
import type { SyncMode } from "./names.ts";

export const limits = {
  "guidance-scale": { min: 0, max: 100 },
  "guidance-rescale": { min: 0, max: 1 },
  "num-inference-steps": { min: 1, max: stepCountMax },
  width: { min: 1, max: 8192 },
  height: { min: 1, max: 8192 },
  gpus: { min: 1, max: rankCountMax },
  threads: { min: 0, max: 1024 },
  "warmup-steps": { min: 0, max: stepCountMax },
  "num-images": { min: 1, max: imageCountMax },
  "batch-size": { min: 1, max: 8 },
} as const;

/** Seeds are torch's: 63 bits without a sign. */
export const seedMax = 2n ** 63n - 1n;

/** The modes, the default first, with what each trades, short enough for one line of --help. */
export const syncModeTexts: Record<SyncMode, string> = {
  corrected_async_gn: "a step old, norms corrected",
  stale_gn: "a step old, the norms too",
  sync_gn: "a step old, but waits for norms",
  separate_gn: "a step old, norms of own rows",
  full_sync: "of this step: exact, but waits",
  no_sync: "of warm-up: no exchange, seams",
};
