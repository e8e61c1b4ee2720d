/**
 * The flags of `upscale`, as citty reads them and as --help shows them: all from its settings.
 */
import type { ArgsDef } from "citty";
import { flagsOf, helpGroupsOf, repeatableOf, valuesOf } from "../settings/flags.ts";
import { upscaleGroups, upscaleSettings } from "../settings/upscale.ts";
import type { Values } from "../terminal/flags.ts";
import type { HelpText } from "../terminal/help.ts";

const rows = Object.values(upscaleSettings);

export const upscaleFlags: ArgsDef = {
  image: {
    type: "positional",
    required: false,
    valueHint: "image",
    description: "PNG, JPEG, WebP, AVIF, TIFF or GIF; several behind one another.",
  },
  ...flagsOf(rows),
};

export const upscaleRepeatable: readonly string[] = repeatableOf(rows);

export const upscaleValues: Readonly<Record<string, Values>> = {
  image: "file",
  ...valuesOf(rows),
};

export const upscaleHelp: HelpText = {
  usage: "basedxl upscale <image>... --upscaler MODEL [flags]",
  summary:
    "Enlarges images by a network, in tiles, on the CPU or on GPUs. Transparency and the " +
    "parameters that images have are kept.",
  examples: [
    "basedxl upscale photo.png --upscaler 4x-UltraSharp --models-dir ~/ComfyUI",
    "basedxl upscale *.png --upscaler RealESRGAN_x4plus --scale 2 --out large/",
  ],
  groups: helpGroupsOf(rows, upscaleGroups).map(([group, flags]) => {
    return [group, group === "Images" ? ["image", ...flags] : flags] as const;
  }),
  notes: ["Exit codes: 0 done, 1 failed, 2 a flag was wrong, 130 stopped by Ctrl-C."],
};
