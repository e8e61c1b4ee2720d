/**
 * Checks a command's raw arguments against its citty definition before citty sees them: citty 0.2
 * ignores unknown flags, keeps the last of two and takes `--seed --steps 3` as an empty seed.
 * Valid flags are passed on as `--name=value`, which is unambiguous.
 */
import type { ArgDef, ArgsDef } from "citty";
import { type BasedXLError, badOption, escaped } from "../errors.ts";
import { expandHome } from "../paths.ts";

/** A flag as typed: its name in the definition, how the user wrote it, and the value beside it. */
interface TypedFlag {
  name: string;
  typed: string;
  value: string | undefined;
}

/**
 * The kind of a value, for completions: one of some words, a file, a folder, or a model of a kind,
 * by its name in the folders of models or as a file.
 */
export type Values = readonly string[] | "file" | "folder" | { models: string };

/** Between the values of a flag that was given several times: no argument can hold it. */
export const listSeparator = "\0";

interface FlagRules {
  /** Flags for which an empty value is valid. */
  emptyAllowed?: readonly string[];
  /** Flags that may be given several times; citty gets their values as one. */
  repeatable?: readonly string[];
}

/**
 * Returns the arguments as `--name=value`, `--name`, `--no-name` and, after `--`, positionals.
 * Throws `BasedXLError` "bad-option" for a flag that is unknown, given twice, without its value,
 * or with a value where it takes none.
 */
export function normalizeFlags(
  rawArgs: readonly string[],
  definition: ArgsDef,
  rules: FlagRules = {},
): string[] {
  const names = flagNames(definition);
  const flags: string[] = [];
  const lists = new Map<string, string[]>();
  const positionals: string[] = [];
  const seen = new Map<string, string>();

  for (let index = 0; index < rawArgs.length; index++) {
    const arg = rawArgs[index] ?? "";
    if (arg === "--") {
      positionals.push(...rawArgs.slice(index + 1));
      break;
    }
    if (!arg.startsWith("-") || arg === "-") {
      positionals.push(arg);
      continue;
    }
    const flag = readFlag(arg, names, definition);
    const before = seen.get(flag.name);
    const isList = rules.repeatable?.includes(flag.name) ?? false;
    if (before !== undefined && !isList) throw givenTwice(before, flag.typed);
    seen.set(flag.name, flag.typed);

    if (definition[flag.name]?.type === "boolean") {
      flags.push(booleanFlag(flag));
      continue;
    }
    if (flag.value === undefined) {
      index++;
      flag.value = valueAfter(flag.typed, rawArgs[index]);
    }
    if (flag.value.trim() === "" && !rules.emptyAllowed?.includes(flag.name)) {
      throw badOption(`${flag.typed} is empty: give it a value, or leave the flag out.`);
    }
    const value = isPath(definition[flag.name]) ? expandHome(flag.value) : flag.value;
    if (isList) lists.set(flag.name, [...(lists.get(flag.name) ?? []), value]);
    else flags.push(`--${flag.name}=${value}`);
  }
  for (const [name, values] of lists) flags.push(`--${name}=${values.join(listSeparator)}`);
  return [...flags, "--", ...positionals];
}

/** The candidate that differs from `text` in the fewest letters; null when none is near. */
export function nearest(text: string, candidates: Iterable<string>): string | null {
  return nearestFew(text, candidates, 1)[0] ?? null;
}

/** The `count` candidates that differ from `text` in the fewest letters, nearest first. */
export function nearestFew(text: string, candidates: Iterable<string>, count: number): string[] {
  // Half of the letters may differ at most, and never more than four: beyond that it is a guess.
  const distanceMax = Math.min(4, Math.ceil(text.length / 2));
  return [...candidates]
    .filter((candidate) => Math.abs(candidate.length - text.length) <= distanceMax)
    .map((name) => ({ name, distance: editDistance(text.toLowerCase(), name.toLowerCase()) }))
    .filter(({ distance }) => distance <= distanceMax)
    .sort((a, b) => a.distance - b.distance)
    .slice(0, count)
    .map(({ name }) => name);
}

/** ` Did you mean X?`, or "" when nothing is near. Candidates may be foreign text. */
export function suggestion(text: string, candidates: Iterable<string>, prefix = ""): string {
  const found = nearest(text, candidates);
  return found === null ? "" : ` Did you mean ${prefix}${escaped(found, 100)}?`;
}

/** The other long names of a flag. Definitions give one as a string: citty adds to arrays. */
export function aliasesOf(definition: ArgDef | undefined): string[] {
  if (!definition || !("alias" in definition) || definition.alias === undefined) return [];
  return [definition.alias].flat();
}

// --- internal ---

function givenTwice(before: string, now: string): BasedXLError {
  if (before === now) return badOption(`${now} is given twice: keep one of the two.`);
  return badOption(`${before} and ${now} are the same flag: keep one of the two.`);
}

/** The hint of a definition names the kind of its value. */
function isPath(definition: ArgDef | undefined): boolean {
  return /^(?:FILE|FOLDER|PATH)\b/.test(definition?.valueHint ?? "");
}

/** Maps every name of a flag, aliases included, to its name in the definition. */
function flagNames(definition: ArgsDef): Map<string, string> {
  const names = new Map<string, string>();
  for (const [name, arg] of Object.entries(definition)) {
    if (arg.type === "positional") continue;
    for (const typed of [name, ...aliasesOf(arg)]) names.set(typed, name);
  }
  return names;
}

function readFlag(arg: string, names: Map<string, string>, definition: ArgsDef): TypedFlag {
  const equals = arg.indexOf("=");
  const typed = equals < 0 ? arg : arg.slice(0, equals);
  const value = equals < 0 ? undefined : arg.slice(equals + 1);
  const bare = typed.replace(/^--?/, "");

  const name = typed.startsWith("--") ? names.get(bare) : undefined;
  if (name !== undefined) return { name, typed, value };

  const positive = typed.startsWith("--no-") ? names.get(bare.slice(3)) : undefined;
  if (positive !== undefined && definition[positive]?.type === "boolean") {
    if (value !== undefined) throw badOption(`${typed} takes no value: write it alone.`);
    return { name: positive, typed, value: "false" };
  }

  const hint = suggestion(bare, [...names.keys(), ...negativesOf(bare, definition)], "--");
  const text = /\s/.test(typed) ? ` A prompt that begins with "-" is written --prompt="-...".` : "";
  throw badOption(`There is no flag ${typed}.${hint}${text} --help lists them all.`);
}

/** `no-` forms to suggest, where something was typed that begins like one. */
function negativesOf(bare: string, definition: ArgsDef): string[] {
  if (!bare.startsWith("no-")) return [];
  const booleans = Object.keys(definition).filter((name) => definition[name]?.type === "boolean");
  return booleans.map((name) => `no-${name}`);
}

function booleanFlag({ name, typed, value }: TypedFlag): string {
  if (value === undefined || value === "true") return `--${name}`;
  if (value === "false") return `--no-${name}`;
  throw badOption(
    `${typed}=${value} is not understood: write ${typed} for yes, --no-${name} for no.`,
  );
}

/** The next argument as the flag's value. `-5` is a value (a number below zero), `--x` is not. */
function valueAfter(typed: string, next: string | undefined): string {
  if (next === undefined) throw badOption(`${typed} needs a value after it.`);
  if (!next.startsWith("--")) return next;
  throw badOption(`${typed} needs a value before ${next}; one that begins with "--" is written \
${typed}=VALUE.`);
}

/**
 * Optimal string alignment: letters to insert, delete, replace, or to exchange with the next one,
 * which is the commonest slip.
 */
function editDistance(from: string, to: string): number {
  let previous = Array.from({ length: to.length + 1 }, (_, column) => column);
  let beforeThat = previous;
  for (let row = 1; row <= from.length; row++) {
    const current = [row];
    for (let column = 1; column <= to.length; column++) {
      const replaced = (previous[column - 1] ?? 0) + (from[row - 1] === to[column - 1] ? 0 : 1);
      const inserted = (current[column - 1] ?? 0) + 1;
      const deleted = (previous[column] ?? 0) + 1;
      const isTurned = from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1];
      const turned =
        row > 1 && column > 1 && isTurned ? (beforeThat[column - 2] ?? 0) + 1 : deleted;
      current.push(Math.min(replaced, inserted, deleted, turned));
    }
    beforeThat = previous;
    previous = current;
  }
  return previous[to.length] ?? 0;
}
