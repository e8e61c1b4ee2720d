/**
 * The flags of `models`, as citty reads them and as --help shows them.
 */
import type { ArgsDef } from "citty";
import { listedKinds } from "../library/kinds.ts";
import type { Values } from "../terminal/flags.ts";
import type { HelpText } from "../terminal/help.ts";

export const modelsFlags = {
  kind: {
    type: "string",
    valueHint: "KIND",
    description: `Only models of this kind: ${listedKinds.join(", ")}. Default: all.`,
  },
  "models-dir": {
    type: "string",
    valueHint: "FOLDER",
    description:
      "A folder of ComfyUI, A1111 or Forge, any other, or an extra_model_paths.yaml; several by " +
      "giving the flag several times. Default: the variable BASEDXL_MODELS_DIR, with " +
      '":" between them.',
  },
  hash: {
    type: "boolean",
    negativeDescription:
      "Do not compute hashes. Computed ones are kept until a file changes; the first time takes " +
      "some seconds for each checkpoint.",
  },
  names: {
    type: "boolean",
    description: "Print names alone, a line each, without looking into files: for completions.",
  },
  json: {
    type: "boolean",
    description:
      'Print one JSON object on stdout: "models" with name, kind, detail, bytes, hash, sha256, ' +
      'path and problem of each, "folders" and "warnings".',
  },
  help: { type: "boolean", description: "Print this help." },
} as const satisfies ArgsDef;

export const modelsValues: Readonly<Record<string, Values>> = {
  kind: listedKinds,
  "models-dir": "folder",
};

/** Flags that may be given several times. */
export const modelsRepeatable = ["models-dir"];

export const modelsHelp: HelpText = {
  usage: "basedxl models [flags]",
  summary:
    "Lists the models in the folders of models and in the cache of the Hugging Face hub: what " +
    "each is, its size, its hash as sites of models show it (AutoV2: SHA-256, 10 digits), and " +
    "where it is.",
  examples: [
    "basedxl models --models-dir ~/ComfyUI",
    "basedxl models --kind lora --no-hash",
    "BASEDXL_MODELS_DIR=~/ComfyUI:/data/loras basedxl models --json",
  ],
  groups: [
    ["What", ["kind", "models-dir"]],
    ["Output", ["hash", "names", "json", "help"]],
  ],
  notes: [
    "sample takes the names: --model NAME. Names may leave out sub-folders and the case of " +
      "letters where that leaves one model.",
  ],
};
