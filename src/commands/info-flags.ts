/**
 * The flags of `info`, as citty reads them and as --help shows them.
 */
import type { ArgsDef } from "citty";
import type { HelpText } from "../terminal/help.ts";

export const infoFlags = {
  file: {
    type: "positional",
    required: false,
    valueHint: "file",
    description: "An image (.png, .jpg, .webp, .avif), or a model (.safetensors).",
  },
  hash: {
    type: "boolean",
    negativeDescription:
      "Do not compute the hashes of a model. Computed ones are kept until the file changes.",
  },
  json: {
    type: "boolean",
    description:
      "Print one JSON object on stdout: all texts of an image, and what was read of them; all " +
      "metadata of a model.",
  },
  help: { type: "boolean", description: "Print this help." },
} as const satisfies ArgsDef;

export const infoHelp: HelpText = {
  usage: "basedxl info <file> [flags]",
  summary:
    "Prints what an image says of how it was made (by BasedXL, A1111 and its kin, ComfyUI, " +
    "SwarmUI or Fooocus), or what a .safetensors file is: its kind, hashes, and what it was " +
    "trained with.",
  examples: [
    "basedxl info sample.png",
    "basedxl info ~/ComfyUI/models/loras/ink.safetensors",
    "basedxl info sample.webp --json",
  ],
  groups: [
    ["What", ["file"]],
    ["Output", ["hash", "json", "help"]],
  ],
  notes: ["sample --from-image FILE generates an image again."],
};
