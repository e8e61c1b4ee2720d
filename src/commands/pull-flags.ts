/**
 * The flags of `pull`, as citty reads them and as --help shows them.
 */
import type { ArgsDef } from "citty";
import type { HelpText } from "../terminal/help.ts";

export const pullFlags = {
  id: {
    type: "positional",
    required: false,
    valueHint: "id",
    description:
      "org/name, org/name@revision, org/name:file.safetensors, or the address of a page.",
  },
  quiet: { type: "boolean", description: "Print errors and the folder only." },
  json: { type: "boolean", description: "Print one JSON object on stdout, and no progress." },
  verbose: { type: "boolean", description: "Print the stack trace of an unexpected error." },
  help: { type: "boolean", description: "Print this help." },
} as const satisfies ArgsDef;

export const pullHelp: HelpText = {
  usage: "basedxl pull <id> [flags]",
  summary:
    "Fetches a model of the Hugging Face hub into the cache that Python's huggingface_hub uses " +
    "too, and prints where it is. Nothing is generated.",
  examples: [
    "basedxl pull stabilityai/stable-diffusion-xl-base-1.0",
    "basedxl pull org/name@v1.0",
    "basedxl pull org/name:model-fp16.safetensors",
  ],
  groups: [
    ["What", ["id"]],
    ["Output", ["quiet", "json", "verbose", "help"]],
  ],
  notes: [
    "Only what sample needs is fetched: configs, tokenizers and one set of weights, fp16 where " +
      "there is one. A download that was stopped goes on where it stopped. `sample --model ID` " +
      "fetches what is missing too, and makes no request for what is there; pull asks the hub " +
      "whether the branch has moved.",
    "Variables: HF_HOME and HF_HUB_CACHE (where the cache is), HF_TOKEN (for gated and private " +
      "models), HF_ENDPOINT (another hub), HF_HUB_OFFLINE=1 (no requests), HTTPS_PROXY.",
  ],
};
