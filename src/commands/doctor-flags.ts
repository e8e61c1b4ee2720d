/**
 * The flags of `doctor`, as citty reads them and as --help shows them.
 */
import type { ArgsDef } from "citty";
import type { HelpText } from "../terminal/help.ts";

/** Seconds that the driver may take. */
export const gpuLimit = { min: 1, max: 120, default: 20 };

export const doctorFlags = {
  "gpu-limit": {
    type: "string",
    valueHint: "SECONDS",
    description: `How long the driver may take to answer, ${gpuLimit.min} to ${gpuLimit.max}. \
Default: ${gpuLimit.default}.`,
  },
  json: {
    type: "boolean",
    description:
      'Print one JSON object on stdout: a member for each section, and "problems" with what is ' +
      "wrong and what to do.",
  },
  help: { type: "boolean", description: "Print this help." },
} as const satisfies ArgsDef;

export const doctorHelp: HelpText = {
  usage: "basedxl doctor [flags]",
  summary:
    "Looks at processor, memory, native library, image encoder, NVIDIA's driver, GPUs and " +
    "models, and says what sample would pick. Nothing is generated or downloaded.",
  examples: ["basedxl doctor", "basedxl doctor --json"],
  groups: [
    ["How", ["gpu-limit"]],
    ["Output", ["json", "help"]],
  ],
  notes: [
    "Every red line says what to do. Exit codes: 0 nothing is wrong, 1 something is, 2 a flag " +
      "was wrong.",
  ],
};
