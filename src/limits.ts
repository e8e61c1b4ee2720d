/**
 * The range of every numeric flag, in one place, so that checks and help cannot differ.
 * What a model narrows further (sizes, steps) is checked once the model is known.
 */
import { stepCountMax } from "./schedule.ts";

export const limits = {
  "guidance-scale": { min: 0, max: 100 },
  "num-inference-steps": { min: 1, max: stepCountMax },
  width: { min: 1, max: 8192 },
  height: { min: 1, max: 8192 },
  gpus: { min: 1, max: 16 },
  threads: { min: 0, max: 1024 },
  "warmup-steps": { min: 0, max: stepCountMax },
} as const;

/** Seeds are torch's: 63 bits without a sign. */
export const seedMax = 2n ** 63n - 1n;

export const timestepSpacings = ["leading", "trailing", "linspace"] as const;
