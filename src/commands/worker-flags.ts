/**
 * The flags of `worker`: those settings of the server that say where jobs come from and how they
 * are run.
 */
import type { ArgsDef } from "citty";
import { serveGroups, serveSettings } from "../serve/settings.ts";
import { flagsOf, helpGroupsOf, repeatableOf, valuesOf } from "../settings/flags.ts";
import type { Values } from "../terminal/flags.ts";
import type { HelpText } from "../terminal/help.ts";

const own = ["outputs", "metadata", "config-file", "max-attempts"];
const rows = Object.values(serveSettings).filter(({ flag, group = "" }) => {
  return own.includes(flag) || ["Models and devices", "Workers", "Output"].includes(group);
});

export const workerFlags: ArgsDef = flagsOf(rows);

export const workerRepeatable: readonly string[] = repeatableOf(rows);

export const workerValues: Readonly<Record<string, Values>> = valuesOf(rows);

export const workerHelp: HelpText = {
  usage: "basedxl worker --queue URL [flags]",
  summary:
    "Generates images for servers on other machines: takes jobs of basedxl serve --queue from a " +
    "Redis or Valkey, any number of workers at a time.",
  examples: [
    "basedxl worker --queue redis://10.0.0.7 --model sdxl --outputs /srv/images",
    "basedxl worker --queue redis://10.0.0.7 --store s3://images/made --gpus 4",
  ],
  groups: helpGroupsOf(rows, serveGroups),
  notes: [
    "The settings are those of serve, also as variables (BASEDXL_SERVE_QUEUE=...) and in its " +
      "TOML file. Models have the names and files that they have at the server.",
    "SIGTERM and Ctrl-C give back within a step what runs; another worker goes on with it.",
    "Exit codes: 1 failed, 2 a setting was wrong, 130 stopped by Ctrl-C, 143 terminated.",
  ],
};
