/**
 * The settings of `upscale`: its own rows, and those that it has in common with `sample`.
 */
import { upscaleTileMax, upscaleTileMin } from "../native/abi.ts";
import type { AnySetting } from "./setting.ts";
import { type SettingKey, settings } from "./table.ts";

export const upscaleGroups = ["Images", "Model and device", "Output"] as const;

const own = {
  upscaler: {
    kind: "path",
    flag: "upscaler",
    names: "file",
    models: "upscaler",
    group: "Images",
    hint: "MODEL",
    help:
      "An upscaler of ESRGAN's kind (RRDBNet of ESRGAN and Real-ESRGAN, and its compact one): a " +
      ".safetensors file, or a name in the folders of models.",
  },
  scale: {
    kind: "number",
    flag: "scale",
    min: 0.25,
    max: 16,
    group: "Images",
    hint: "X",
    help:
      "How often as large the result is, {range}: the upscaler runs as often as that needs, and " +
      "lanczos makes the size. Default: the upscaler's own.",
  },
  tile: {
    kind: "whole",
    flag: "tile",
    min: upscaleTileMin,
    max: upscaleTileMax,
    default: 256,
    group: "Images",
    hint: "PIXELS",
    help: "A side of the tiles enlarged at once, {range}: less is less memory. Default: 256.",
  },
  out: {
    kind: "text",
    flag: "out",
    group: "Output",
    hint: "PATH",
    help:
      "The file, or the folder, which several images need: .png, .jpg, .webp or .avif. Default: " +
      "beside each image, as in photo-4x.png.",
  },
} as const satisfies Readonly<Record<string, AnySetting>>;

const commonKeys = [
  ...(["modelsDir", "device", "dtype", "rankCount", "shareGpu", "threadCount"] as const),
  ...(["metadata", "quiet", "verbose", "json"] as const),
] as const satisfies readonly SettingKey[];

/** By their names in code. */
export const upscaleSettings: Readonly<Record<string, AnySetting>> = {
  ...own,
  ...Object.fromEntries(
    commonKeys.map((key) => {
      const isOutput = settings[key].group === "Output";
      return [key, { ...settings[key], group: isOutput ? "Output" : "Model and device" }];
    }),
  ),
};
