/**
 * Rows of settings as citty reads and shows them, and as shells complete them. Every value arrives
 * as a text, so that `values.ts` can say what is wrong with it.
 */
import type { ArgDef } from "citty";
import type { Values } from "../terminal/flags.ts";
import type { AnySetting } from "./setting.ts";

export function flagOf(setting: AnySetting): ArgDef {
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
