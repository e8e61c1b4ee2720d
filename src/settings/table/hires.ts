/**
 * Settings (rows of ../table.ts): a second pass that makes the image larger.
 */
import { stepCountMax } from "../../native/abi.ts";
import type { Setting } from "../setting.ts";

export const hiresSettings = {
  hires: {
    kind: "number",
    flag: "hires",
    min: 1,
    max: 4,
    group: "Second pass",
    hint: "X",
    help:
      "Generate at --width and --height, enlarge that X times ({range}) to the model's unit, and " +
      "denoise it again at --hires-strength (A1111's hires fix): 1.5 or 2 keeps the composition " +
      "of the model's own size. Default: none.",
    scope: "request",
    processes: "same",
    json: "hires",
  },
  hiresStrength: {
    kind: "number",
    flag: "hires-strength",
    min: 0,
    max: 1,
    group: "Second pass",
    hint: "X",
    help:
      "How much of the enlarged image is made anew, {range}, as --strength; at 0 it is only " +
      "enlarged. Default: 0.7 where the latent is enlarged, which needs it, else 0.4.",
    modelDefault: true,
    scope: "request",
    processes: "same",
    json: "hires_strength",
  },
  hiresSteps: {
    kind: "whole",
    flag: "hires-steps",
    min: 0,
    max: stepCountMax,
    group: "Second pass",
    hint: "N",
    help:
      "Steps of the second pass, {range}, of which --hires-strength takes a part as --strength " +
      "does; with --compat a1111 or comfyui so many are taken. Default: 0, as the first.",
    scope: "request",
    processes: "same",
    json: "hires_steps",
  },
  hiresUpscaler: {
    kind: "text",
    flag: "hires-upscaler",
    group: "Second pass",
    hint: "NAME",
    help:
      "What enlarges: the latent between its numbers (latent as A1111, latent-bicubic or " +
      "latent-nearest-exact), or the decoded image: lanczos, or an upscaler of ESRGAN's kind (a " +
      ".safetensors file, or a name in the folders of models). Default: latent.",
    scope: "request",
    processes: "same",
    json: "hires_upscaler",
  },
} as const satisfies Readonly<Record<string, Setting>>;
