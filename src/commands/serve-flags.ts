/**
 * The flags of `serve`, as citty reads them and as --help shows them.
 */
import type { ArgsDef } from "citty";
import type { HelpText } from "../terminal/help.ts";

export const serveFlags = {
  host: { type: "string", valueHint: "HOST", description: "Where it listens. Default: 127.0.0.1." },
  port: { type: "string", valueHint: "N", description: "Default: 7860." },
  model: { type: "string", valueHint: "PATH", description: "As of sample." },
  outputs: { type: "string", valueHint: "FOLDER", description: "Default: outputs." },
  help: { type: "boolean", description: "Print this help." },
} as const satisfies ArgsDef;

export const serveHelp: HelpText = {
  usage: "basedxl serve [flags]",
  summary: "Generates images for others, over HTTP.",
  examples: ["basedxl serve", "basedxl serve --port 8000"],
  groups: [["Server", ["host", "port", "model", "outputs", "help"]]],
  notes: [],
};
