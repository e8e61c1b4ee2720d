/**
 * Bun reads `.env` files of the current folder into process.env before any code runs, and a clone
 * is called from any folder (`bun CLONE/src/main.ts`): variables that name programs, libraries and
 * models must not come from there. The one-file binary is built without that feature; a clone
 * restarts itself with its original environment.
 */
import { readdirSync, readFileSync } from "node:fs";

type Environment = Record<string, string>;

/** Options of Bun that choose the `.env` files explicitly. */
const decided = /^--(no-)?env-file/;

/**
 * The environment without what Bun read from the current folder; null where it read nothing, or
 * where an option chose the files.
 */
export function environmentWithoutFiles(
  bunOptions: readonly string[] = process.execArgv,
): Environment | null {
  if (bunOptions.some((option) => decided.test(option))) return null;
  const names = envFiles();
  if (names.length === 0) return null;
  return givenEnvironment() ?? withoutKeysOf(names);
}

/** The process's initial environment; null where the system does not report it. */
export function givenEnvironment(): Environment | null {
  const entries = givenStrings("environ")
    ?.filter(Boolean)
    .map((entry) => {
      const at = entry.indexOf("=");
      return [entry.slice(0, at), entry.slice(at + 1)] as const;
    });
  return entries === undefined ? null : Object.fromEntries(entries);
}

/** What the process was started with, as Linux reports it; null elsewhere. */
export function givenStrings(file: "environ" | "cmdline"): string[] | null {
  try {
    return readFileSync(`/proc/self/${file}`, "utf8").split("\0").slice(0, -1);
  } catch {
    return null;
  }
}

// --- internal ---

/** `.env`, `.env.local`, `.env.production` and the like, in the current folder. */
function envFiles(): string[] {
  try {
    return readdirSync(".").filter((name) => name === ".env" || name.startsWith(".env."));
  } catch {
    return [];
  }
}

/** Drops every variable that the files name: Bun does not report where a value came from. */
function withoutKeysOf(names: readonly string[]): Environment {
  const keys = new Set<string>();
  for (const name of names) {
    try {
      const text = readFileSync(name, "utf8");
      for (const [, key = ""] of text.matchAll(/^\s*(?:export\s+)?([\w.-]+)\s*[=:]/gm))
        keys.add(key);
    } catch {
      // A file that cannot be read was not read by Bun either.
    }
  }
  const entries = Object.entries(process.env).filter(
    (entry): entry is [string, string] => entry[1] !== undefined && !keys.has(entry[0]),
  );
  return Object.fromEntries(entries);
}
