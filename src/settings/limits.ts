/**
 * Ranges of the table of settings by flag, for flags that are not the command's own.
 */
import { settings } from "./table.ts";

export { seedMax } from "./setting.ts";

export const limits = {
  "guidance-scale": settings.guidanceScale,
  "guidance-rescale": settings.guidanceRescale,
  "num-inference-steps": settings.stepCount,
  width: settings.width,
  height: settings.height,
  gpus: settings.rankCount,
  threads: settings.threadCount,
  "warmup-steps": settings.warmupSteps,
  "num-images": settings.imageCount,
  "batch-size": settings.batchSize,
} as const;
