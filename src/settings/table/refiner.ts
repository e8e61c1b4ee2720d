/**
 * Settings (rows of ../table.ts): steps that are shared between a base model and a refiner.
 */
import type { Setting } from "../setting.ts";

export const refinerSettings = {
  denoisingEnd: {
    kind: "number",
    flag: "denoising-end",
    min: 0,
    max: 1,
    default: 1,
    group: "Refiner",
    hint: "X",
    help:
      "The part of the noise levels that the model takes, {range}, counted as diffusers does: " +
      "0.8 leaves the last fifth to --refiner. Default: 1, all of them.",
    scope: "request",
    processes: "same",
    json: "denoising_end",
  },
} as const satisfies Readonly<Record<string, Setting>>;
