/**
 * Rows of settings as citty reads and shows them, and as shells complete them. Every value arrives
 * as a text, so that `values.ts` can say what is wrong with it.
 */
import type { ArgDef, ArgsDef } from "citty";
import type { Values } from "../terminal/flags.ts";
import type { HelpText } from "../terminal/help.ts";
import type { AnySetting } from "./setting.ts";

/** The flags of a command that has these settings, with --help. */
export function flagsOf(settings: readonly AnySetting[]): ArgsDef {
  return {
    ...Object.fromEntries(settings.map((setting) => [setting.flag, flagOf(setting)])),
    help: { type: "boolean", description: "Print this help." },
  };
}

/** Flags that may be given several times. */
export function repeatableOf(settings: readonly AnySetting[]): string[] {
  return settings.filter(({ kind }) => kind === "list").map(({ flag }) => flag);
}

/** The groups of `--help` that have a flag, in this order; the last has --help too. */
export function helpGroupsOf(
  settings: readonly AnySetting[],
  groups: readonly string[],
): HelpText["groups"] {
  return groups.flatMap((group) => {
    const flags = settings.filter((setting) => setting.group === group).map(({ flag }) => flag);
    if (group === groups.at(-1)) flags.push("help");
    return flags.length === 0 ? [] : [[group, flags] as const];
  });
}

/** What shells complete, by flag. */
export function valuesOf(settings: readonly AnySetting[]): Record<string, Values> {
  return Object.fromEntries(
    settings.flatMap((setting): [string, Values][] => {
      const { flag } = setting;
      if ("models" in setting && setting.models) return [[flag, { models: setting.models }]];
      return "names" in setting && setting.names ? [[flag, setting.names]] : [];
    }),
  );
}

/** What the setting does, with its range or names. */
export function helpTextOf(setting: AnySetting): string {
  const range = "min" in setting ? `${setting.min} to ${setting.max}` : "";
  const names = setting.kind === "choice" ? setting.names.join(", ") : "";
  return setting.help.replace("{range}", range).replace("{names}", names);
}

// --- internal ---

function flagOf(setting: AnySetting): ArgDef {
  const { aliases, hint } = setting;
  const text = helpTextOf(setting);
  // One alias as a text: citty adds to arrays.
  const alias = aliases?.length === 1 ? aliases[0] : aliases && [...aliases];
  const names = alias === undefined ? {} : { alias };
  if (setting.kind !== "boolean") {
    return { type: "string", ...(hint && { valueHint: hint }), ...names, description: text };
  }
  const isOn = setting.default === true;
  return {
    type: "boolean",
    ...names,
    ...(isOn ? { negativeDescription: text } : { description: text }),
  };
}
