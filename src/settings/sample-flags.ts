/**
 * The flags of `sample` as citty reads them, as `--help` shows them and as shells complete them:
 * all from the table of settings.
 */
import type { ArgDef, ArgsDef } from "citty";
import type { Values } from "../terminal/flags.ts";
import type { HelpText } from "../terminal/help.ts";
import { flagsOf, helpGroupsOf, repeatableOf, valuesOf } from "./flags.ts";
import { groups } from "./setting.ts";
import { settingKeys, settingOf } from "./table.ts";

const rows = settingKeys.map(settingOf);

const positional = {
  type: "positional",
  required: false,
  valueHint: "prompt",
  description: "What the image shows, in quotes; the same as --prompt.",
} as const satisfies ArgDef;

export const sampleFlags: ArgsDef = { promptText: positional, ...flagsOf(rows) };

/** Flags for which an empty value means something. */
export const sampleEmptyAllowed: readonly string[] = rows
  .filter((setting) => "emptyAllowed" in setting)
  .map(({ flag }) => flag);

/** Flags that may be given several times. */
export const sampleRepeatable: readonly string[] = repeatableOf(rows);

/** What shells complete, by flag. */
export const sampleValues: Readonly<Record<string, Values>> = valuesOf(rows);

export const sampleHelp: HelpText = {
  usage: "basedxl sample [prompt] [flags]",
  summary:
    "Generates images. In a clone of the repository, basedxl is written bun run: " +
    "bun run sample --gpus 2.",
  examples: [
    "basedxl sample",
    'basedxl sample "a red house on the grass" --seed 7',
    "basedxl sample --gpus 4 --steps 25 --out house.webp",
    "basedxl sample --num-images 4 --batch-size 2",
    "basedxl sample --model ~/models/sdxl-base --width 1216 --height 832",
    'basedxl sample --seed 7 --xyz "steps=10,20;guidance=4,7"',
    "basedxl sample --seed 7 --json",
  ],
  groups: helpGroupsOf(rows, groups).map(([group, flags]) => {
    return [group, group === "Image" ? ["promptText", ...flags] : flags];
  }),
  notes: [
    "Several processes: run the same command on each machine with RANK (0, 1, ...), WORLD_SIZE, " +
      "MASTER_ADDR and MASTER_PORT set, as torchrun and the like do. They count processes, one " +
      "per machine or one per GPU (then LOCAL_RANK says which), and --gpus the ranks of each. " +
      "Process 0 listens on MASTER_PORT, decides a seed that nobody named, and writes the " +
      "image. Where other machines reach the port, all need the same BASEDXL_SECRET: process 0 " +
      "makes and shows one where none is set.",
    "Exit codes: 0 done, 1 failed, 2 a flag was wrong, 130 stopped by Ctrl-C, 143 terminated.",
  ],
};
