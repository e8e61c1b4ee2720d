/**
 * Settings (rows of ../table.ts): steps that are shared between a base model and a refiner.
 */
import type { Setting } from "../setting.ts";

export const refinerSettings = {
  refiner: {
    kind: "path",
    flag: "refiner",
    names: "file",
    models: "checkpoint",
    group: "Refiner",
    hint: "PATH",
    help:
      "A model that finishes the images, named as --model is: from --denoising-end on, or " +
      "without that it makes the last 0.3 of the steps anew. Loaded beside --model where memory " +
      "suffices, else after it. LoRAs are --model's alone. Default: none.",
    scope: "pipeline",
    processes: "own",
    json: "refiner",
  },
  denoisingEnd: {
    kind: "number",
    flag: "denoising-end",
    min: 0,
    max: 1,
    default: 1,
    group: "Refiner",
    hint: "X",
    help:
      "The part of the noise levels that the model takes, {range}, counted as diffusers does, or " +
      "with --compat a1111 or comfyui of the steps: 0.8 leaves the last fifth to --refiner. " +
      "Default: 1, all of them.",
    scope: "request",
    processes: "same",
    json: "denoising_end",
  },
  aestheticScore: {
    kind: "number",
    flag: "aesthetic-score",
    min: 0,
    max: 10,
    default: 6,
    group: "Refiner",
    hint: "X",
    help:
      "How beautiful the images are to be that an SDXL refiner makes, {range}: a number that it " +
      "was trained with. Default: 6.",
    scope: "request",
    processes: "same",
    json: "aesthetic_score",
  },
  negativeAestheticScore: {
    kind: "number",
    flag: "negative-aesthetic-score",
    min: 0,
    max: 10,
    default: 2.5,
    group: "Refiner",
    hint: "X",
    help: "The same beside the negative prompt, {range}. Default: 2.5.",
    scope: "request",
    processes: "same",
    json: "negative_aesthetic_score",
  },
} as const satisfies Readonly<Record<string, Setting>>;
