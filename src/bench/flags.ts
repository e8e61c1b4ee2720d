/**
 * The flags of the benches: checked like the command's, and parsed into lists, sizes and numbers.
 * All errors are `BasedXLError` "bad-option" with one sentence.
 */
import type { ArgsDef } from "citty";
import { parseArgs } from "citty";
import { badOption } from "../errors.ts";
import { schedulers } from "../settings/names.ts";
import { seedMax } from "../settings/setting.ts";
import { settings } from "../settings/table.ts";
import { normalizeFlags, suggestion } from "../terminal/flags.ts";

export type Flags = Record<string, string | boolean | undefined>;

interface Range {
  min: number;
  max: number;
}

/** Flags that several benches share, for `ArgsDef`s. */
export const sharedFlags = {
  model: {
    type: "string",
    valueHint: "FOLDER",
    description: "Model, as for sample. Default: BASEDXL_MODEL, else the bundled mini-sdxl.",
  },
  modes: {
    type: "string",
    valueHint: "LIST",
    description: "Sync modes, separated by commas.",
  },
  size: {
    type: "string",
    valueHint: "WxH",
    description: "Size in pixels, such as 1024x1024. Default: the model's own size.",
  },
  steps: {
    type: "string",
    valueHint: "N",
    description: `Number of steps, ${settings.stepCount.min} or more.`,
  },
  "guidance-scale": {
    type: "string",
    valueHint: "X",
    description: "Guidance scale; 1 or less disables guidance. Default: the model's own, else 5.",
  },
  scheduler: {
    type: "string",
    valueHint: "NAME",
    description: `${schedulers.join(", ")}. Default: euler.`,
  },
  out: {
    type: "string",
    valueHint: "FOLDER",
    description: "Folder for JSON and chart. Default: bench-out.",
  },
  help: { type: "boolean", description: "Print this help." },
} as const satisfies ArgsDef;

/** Parses the arguments after the bench's name; only flags are allowed. */
export function readFlags(args: readonly string[], definition: ArgsDef): Flags {
  const checked = normalizeFlags(args, definition);
  const [positional] = checked.slice(checked.indexOf("--") + 1);
  if (positional !== undefined) {
    throw badOption(`"${positional}" is not a flag: benches take only flags; --help lists them.`);
  }
  const { _, ...flags } = parseArgs(checked, definition);
  return flags as Flags;
}

export function textOf(flags: Flags, name: string): string | undefined {
  const value = flags[name];
  return typeof value === "string" ? value : undefined;
}

export function wholeOf(flags: Flags, name: string, range: Range): number | undefined {
  const text = textOf(flags, name);
  return text === undefined ? undefined : whole(name, text, range);
}

/** Integers separated by commas, without duplicates. */
export function wholesOf(flags: Flags, name: string, range: Range): number[] | undefined {
  return listOf(flags, name)?.map((text) => whole(name, text, range));
}

export function seedsOf(flags: Flags, name: string): bigint[] | undefined {
  return listOf(flags, name)?.map((text) => {
    const seed = /^\d{1,30}$/.test(text) ? BigInt(text) : -1n;
    if (seed >= 0n && seed <= seedMax) return seed;
    throw badOption(`--${name} takes whole numbers from 0 to ${seedMax}, not "${text}".`);
  });
}

export function decimalOf(flags: Flags, name: string, { min, max }: Range): number | undefined {
  const text = textOf(flags, name);
  if (text === undefined) return undefined;
  const value = /^(\d+\.?\d*|\.\d+)$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw badOption(`--${name} must be a number from ${min} to ${max}, not "${text}".`);
}

export function nameOf<Name extends string>(
  flags: Flags,
  name: string,
  names: readonly Name[],
): Name | undefined {
  const text = textOf(flags, name);
  return text === undefined ? undefined : oneOf(name, text, names);
}

/** Names separated by commas, without duplicates. */
export function namesOf<Name extends string>(
  flags: Flags,
  name: string,
  names: readonly Name[],
): Name[] | undefined {
  return listOf(flags, name)?.map((text) => oneOf(name, text, names));
}

/** WIDTHxHEIGHT in pixels, both multiples of `unit`. */
export function sizeOf(flags: Flags, unit: number): { width: number; height: number } | undefined {
  const text = textOf(flags, "size");
  if (text === undefined) return undefined;
  const max = Math.floor(settings.width.max / unit) * unit;
  const [, width, height] = /^(\d{1,6})x(\d{1,6})$/i.exec(text)?.map(Number) ?? [];
  const fits = (side: number) => side >= unit && side <= max && side % unit === 0;
  if (width !== undefined && height !== undefined && fits(width) && fits(height)) {
    return { width, height };
  }
  throw badOption(
    `--size must be WIDTHxHEIGHT in pixels, multiples of ${unit} from ${unit} to ${max}, such as \
${8 * unit}x${8 * unit}, not "${text}".`,
  );
}

// --- internal ---

function listOf(flags: Flags, name: string): string[] | undefined {
  const text = textOf(flags, name);
  if (text === undefined) return undefined;
  const parts = text.split(",").map((part) => part.trim());
  if (parts.includes("")) {
    throw badOption(`--${name} "${text}" has an empty entry: write values with commas between.`);
  }
  return [...new Set(parts)];
}

function whole(name: string, text: string, { min, max }: Range): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw badOption(`--${name} takes whole numbers from ${min} to ${max}, not "${text}".`);
}

function oneOf<Name extends string>(flag: string, text: string, names: readonly Name[]): Name {
  const found = names.find((name) => name === text);
  if (found !== undefined) return found;
  const hint = suggestion(text, names);
  throw badOption(`--${flag} takes ${names.join(", ")}, not "${text}".${hint}`);
}
