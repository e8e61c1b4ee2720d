/**
 * The flags of `verify`, as citty reads them and as --help shows them.
 */
import type { ArgsDef } from "citty";
import type { HelpText } from "../terminal/help.ts";

export const verifyDevices = ["cuda", "cuda-emulated"] as const;

export const verifyFlags = {
  quick: { type: "boolean", description: "Fewer draws, types and modes." },
  only: {
    type: "string",
    valueHint: "NAME,...",
    description: "Only checks whose name contains this, or one of these, in any case.",
  },
  seed: {
    type: "string",
    valueHint: "N",
    description:
      "Of the first draw of every operation; the next have the next numbers. A failure names its " +
      "own. Default: 1.",
  },
  device: {
    type: "string",
    valueHint: "DEVICE",
    description:
      `${verifyDevices.join(", ")}. cuda-emulated runs the GPU path on the CPU, in a clone. ` +
      "Default: cuda.",
  },
  json: {
    type: "boolean",
    description: "Print one JSON object on stdout, with a member for each check, and no lines.",
  },
  help: { type: "boolean", description: "Print this help." },
} as const satisfies ArgsDef;

export const verifyHelp: HelpText = {
  usage: "basedxl verify [flags]",
  summary:
    "Says whether this GPU computes right: every operation against the CPU on random shapes, the " +
    "networks of a tiny model against what diffusers computed, CUDA graphs on and off, sizes " +
    "turned round, two ranks by peer copies and NCCL in every sync mode, copies between all GPUs.",
  examples: [
    "basedxl verify",
    "basedxl verify --quick --json",
    "basedxl verify --only conv2d --seed 7",
  ],
  groups: [
    ["What", ["quick", "only", "seed"]],
    ["Where", ["device"]],
    ["Output", ["json", "help"]],
  ],
  notes: [
    "What fails is said in its line, and the rest runs on. Exit codes: 0 everything agrees, 1 " +
      "something does not or could not run, 2 a flag was wrong.",
  ],
};
