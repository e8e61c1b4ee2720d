/**
 * The files of models in folders: a walk that reads names and no files. Sub-folders and links are
 * followed, once each, so that a link to a folder above ends; what cannot be read is a warning.
 */
import { type BigIntStats, type Dirent, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { escaped } from "../errors.ts";
import type { KindFolder, Warn } from "./kinds.ts";

export interface FoundModel {
  /** Absolute. */
  path: string;
  /** Below its folder, with "/" between, and with the ending. */
  name: string;
  folder: KindFolder;
  /** A folder in diffusers' layout: a whole model, or one network of it. */
  isFolder: boolean;
}

/** Endings of files that hold a model, whether they can be read or not. */
const modelEnding = /\.(safetensors|sft|ckpt|pt|pt2|pth|bin|pkl|pickle|gguf|onnx|engine|trt)$/i;

/** What browsers and download programs append until a file is whole. */
export const unfinishedEnding =
  /\.(part|partial|crdownload|download|incomplete|aria2|!ut|opdownload|tmp)$/i;

/** A name as lists show it: without the ending. */
export function stemOf(name: string): string {
  return name.replace(unfinishedEnding, "").replace(modelEnding, "");
}

/** Everything that looks like a model, folder by folder in order, sorted by name in each. */
export function scanFolders(folders: readonly KindFolder[], warn: Warn): FoundModel[] {
  // A folder with a kind of its own is not walked as a part of the one above it.
  const walk: Walk = { seen: new Set(), entryCount: 0, found: [], warn };
  const starts = folders.filter(({ path }) => isNew(walk, path));
  for (const folder of starts) walkFolder(walk, folder, folder.path, folder.prefix ?? "", 0);
  if (walk.entryCount > entryCountMax) {
    warn(
      `The folders of models have more than ${entryCountMax} entries: the rest was not looked ` +
        "at. Name folders that hold models alone.",
    );
  }
  return walk.found;
}

// --- internal ---

interface Walk {
  /** Device and number of each folder. */
  seen: Set<string>;
  entryCount: number;
  found: FoundModel[];
  warn: Warn;
}

const entryCountMax = 500_000;
const depthMax = 32;
/** Of environments and tools: they hold thousands of files, and no model. */
const skippedFolders = new Set(["node_modules", "__pycache__", "venv", "site-packages"]);

function isNew(walk: Walk, path: string): boolean {
  const stat = statOf(path);
  const key = stat === undefined ? path : `${stat.dev}:${stat.ino}`;
  if (walk.seen.has(key)) return false;
  walk.seen.add(key);
  return true;
}

function walkFolder(walk: Walk, folder: KindFolder, path: string, name: string, depth: number) {
  const entries = entriesOf(walk, path);
  walk.entryCount += entries.length;
  if (isDiffusersFolder(entries)) {
    const shown = name === "" ? (path.split("/").at(-1) ?? path) : name;
    walk.found.push({ path, name: shown, folder, isFolder: true });
    return;
  }
  for (const entry of entries) {
    if (entry.name.startsWith(".") || walk.entryCount > entryCountMax) continue;
    const below = join(path, entry.name);
    const named = name === "" ? entry.name : `${name}/${entry.name}`;
    if (isFolder(entry, below)) {
      if (depth === depthMax || skippedFolders.has(entry.name) || !isNew(walk, below)) continue;
      walkFolder(walk, folder, below, named, depth + 1);
    } else if (modelEnding.test(entry.name.replace(unfinishedEnding, ""))) {
      walk.found.push({ path: below, name: named, folder, isFolder: false });
    }
  }
}

function entriesOf({ warn }: Walk, path: string): Dirent[] {
  try {
    const entries = readdirSync(path, { withFileTypes: true });
    return entries.sort((a, b) => (a.name < b.name ? -1 : 1));
  } catch (error) {
    const message = escaped((error as Error).message, 300);
    warn(`The folder ${escaped(path, 300)} cannot be read (${message}).`);
    return [];
  }
}

/** A whole model, or a network with its config, such as a VAE or a ControlNet. */
function isDiffusersFolder(entries: readonly Dirent[]): boolean {
  const has = (pattern: RegExp) => entries.some(({ name }) => pattern.test(name));
  return (
    has(/^model_index\.json$/) ||
    (has(/^config\.json$/) && has(/^diffusion_pytorch_model\b.*\.(safetensors|bin|json)$/))
  );
}

function isFolder(entry: Dirent, path: string): boolean {
  if (entry.isDirectory()) return true;
  // Some file systems do not say what an entry is.
  if (entry.isFile()) return false;
  return statOf(path)?.isDirectory() ?? false;
}

function statOf(path: string): BigIntStats | undefined {
  try {
    return statSync(path, { bigint: true, throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}
