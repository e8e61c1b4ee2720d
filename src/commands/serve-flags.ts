/**
 * The flags of `serve`, as citty reads them and as --help shows them: all from its settings.
 */
import type { ArgsDef } from "citty";
import { serveGroups, serveSettings } from "../serve/settings.ts";
import { flagsOf, helpGroupsOf, repeatableOf, valuesOf } from "../settings/flags.ts";
import type { Values } from "../terminal/flags.ts";
import type { HelpText } from "../terminal/help.ts";

const rows = Object.values(serveSettings);

export const serveFlags: ArgsDef = flagsOf(rows);

export const serveRepeatable: readonly string[] = repeatableOf(rows);

export const serveValues: Readonly<Record<string, Values>> = valuesOf(rows);

export const serveHelp: HelpText = {
  usage: "basedxl serve [flags]",
  summary:
    "Generates images for others over HTTP: a page at /, an API of jobs with events, and the " +
    "APIs of OpenAI, A1111 and ComfyUI. Jobs wait in a fair queue and survive a restart.",
  examples: [
    "basedxl serve",
    "basedxl serve --model juggernaut --model sdxl-base --outputs ~/images",
    "basedxl serve --gpus 4 --share 2x2",
    "BASEDXL_SERVE_API_KEY=me=$(openssl rand -hex 16) basedxl serve --host 0.0.0.0",
    "basedxl serve --config-file serve.toml",
  ],
  groups: helpGroupsOf(rows, serveGroups),
  notes: [
    "Every flag is also a variable, BASEDXL_SERVE_MAX_QUEUE=16 (lists with commas between), " +
      'and a line of the TOML file, max_queue = 16 (lists as ["a", "b"]).',
    "SIGTERM and Ctrl-C stop within a step what runs; the next server with the same --outputs " +
      "goes on with it and with what waits. A second signal ends the process at once.",
    "Exit codes: 1 failed, 2 a setting was wrong, 130 stopped by Ctrl-C, 143 terminated.",
  ],
};
