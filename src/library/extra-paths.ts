/**
 * ComfyUI's extra_model_paths.yaml: sections with a base_path and, for each kind, one folder or
 * several on lines of their own. Read as ComfyUI does: `~` and variables are expanded in base_path,
 * a relative path starts at the file, and sections with is_default come first.
 */
import { readFileSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { escaped } from "../errors.ts";
import { expandHome } from "../paths.ts";
import type { Warn } from "./kinds.ts";

interface ExtraPath {
  /** The folder's kind as the file names it, such as "loras". */
  name: string;
  /** Absolute. */
  path: string;
}

/** The folders that the file at `path` names; with a warning and none where it cannot be read. */
export function readExtraPaths(
  path: string,
  warn: Warn,
  env: Record<string, string | undefined> = process.env,
): ExtraPath[] {
  try {
    const { size } = statSync(path);
    if (size > fileBytesMax) throw new Error(`it has ${size} bytes`);
    const sections = Bun.YAML.parse(readFileSync(path, "utf8"));
    if (sections === null) return [];
    if (!isTable(sections)) throw new Error("it is not a table of sections");
    const read = Object.values(sections)
      .filter(isTable)
      .map((section) => pathsOf(section, dirname(path), env));
    const first = read.filter(({ isDefault }) => isDefault);
    const others = read.filter(({ isDefault }) => !isDefault);
    const all = [...first, ...others].flatMap(({ paths }) => paths);
    if (all.length > pathCountMax) throw new Error(`it names ${all.length} folders`);
    return all;
  } catch (error) {
    warn(`${escaped(path, 300)} is not read: ${escaped((error as Error).message, 200)}.`);
    return [];
  }
}

// --- internal ---

/** Of these files people write a page. */
const fileBytesMax = 2 ** 18;
const pathCountMax = 1000;

function pathsOf(
  section: Record<string, unknown>,
  folder: string,
  env: Record<string, string | undefined>,
): { isDefault: boolean; paths: ExtraPath[] } {
  const { base_path: base, is_default: isDefault, ...kinds } = section;
  const root = typeof base === "string" ? resolve(folder, expanded(base, env)) : folder;
  const paths = Object.entries(kinds).flatMap(([name, value]) => {
    if (typeof value !== "string") return [];
    const lines = value.split("\n").map((line) => line.replace(/(^|\s)#.*$/, "").trim());
    return lines
      .filter((line) => line !== "")
      .map((line) => ({ name, path: resolve(root, expandHome(line)) }));
  });
  return { isDefault: isDefault === true, paths };
}

/** As os.path.expandvars: a variable that is not set stays as it is written. */
function expanded(path: string, env: Record<string, string | undefined>): string {
  return expandHome(path).replace(
    /\$(?:(\w+)|\{(\w+)\})/g,
    (written, name?: string, braced?: string) => env[name ?? braced ?? ""] ?? written,
  );
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
