/**
 * Settings (rows of ../table.ts): the size of an image.
 */
import type { Setting } from "../setting.ts";

export const sizeSettings = {
  width: {
    kind: "whole",
    flag: "width",
    min: 1,
    max: 8192,
    group: "Size",
    hint: "PIXELS",
    help:
      "A multiple of the model's unit (32 for SDXL), at most 8192. Default: the model's own " +
      "size, 1024 for SDXL.",
    modelDefault: true,
    scope: "request",
    processes: "same",
    json: "width",
  },
  height: {
    kind: "whole",
    flag: "height",
    min: 1,
    max: 8192,
    group: "Size",
    hint: "PIXELS",
    help: "Like --width.",
    modelDefault: true,
    scope: "request",
    processes: "same",
    json: "height",
  },
} as const satisfies Readonly<Record<string, Setting>>;
