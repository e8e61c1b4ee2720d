/**
 * Models of the hub that are in the cache already: found without a request, so that a run does not
 * depend on the network. A branch means what it meant when it was last fetched; `pull` looks again.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { type HubUse, RepositoryCache } from "./cache.ts";
import {
  configNames,
  modelFolders,
  type WantedFolder,
  weightCandidates,
  weightStem,
} from "./choose.ts";
import type { HubReference } from "./reference.ts";

/** A whole snapshot, or the part of one that a use needs. */
export interface CachedModel {
  /** A folder or a file. */
  path: string;
  commit: string;
}

/** What `reference` names, where all that `use` needs of it is in the cache; else null. */
export function findCached(
  reference: HubReference,
  use: HubUse,
  cacheFolder: string,
): CachedModel | null {
  const cache = new RepositoryCache(cacheFolder, reference.id);
  const commit = cache.commitOf(reference.revision ?? "main");
  if (commit === null) return null;
  const snapshot = cache.snapshot(commit);
  if (reference.file !== undefined) {
    const path = join(snapshot, reference.file);
    return isFile(path) ? { path, commit } : null;
  }
  const path = cache.recorded(commit, use) ?? unrecorded(snapshot, use);
  if (path !== null) return { path, commit };
  // `pull` does not know what a file is for.
  const pulled = cache.recorded(commit, "model");
  return pulled !== null && isFile(pulled) ? { path: pulled, commit } : null;
}

/** The first whole folder that fits; null where there is none in the cache. */
export function findCachedFolder(
  { id, revision = "main" }: HubReference,
  { folders, fits }: WantedFolder,
  cacheFolder: string,
): CachedModel | null {
  const cache = new RepositoryCache(cacheFolder, id);
  const commit = cache.commitOf(revision);
  if (commit === null) return null;
  const snapshot = cache.snapshot(commit);
  const folder = folders.find((each) => {
    return isWhole(snapshot, each) && fits(jsonOf(join(snapshot, each, "config.json")));
  });
  return folder === undefined ? null : { path: join(snapshot, folder), commit };
}

/**
 * The only .safetensors file of the snapshot that `reference` names: probably the whole repository,
 * which the hub alone could tell.
 */
export function findOnlyFile(reference: HubReference, cacheFolder: string): CachedModel | null {
  const cache = new RepositoryCache(cacheFolder, reference.id);
  const commit = cache.commitOf(reference.revision ?? "main");
  if (commit === null || reference.file !== undefined) return null;
  const snapshot = cache.snapshot(commit);
  const names = namesIn(snapshot).filter((name) => name.endsWith(".safetensors"));
  const [name, ...more] = names;
  if (name === undefined || more.length > 0 || isFile(join(snapshot, "model_index.json"))) {
    return null;
  }
  return { path: join(snapshot, name), commit };
}

/** The files that a parsed index names; none for what is no index. */
export function shardNames(index: unknown): string[] {
  const map = (index as { weight_map?: unknown } | null)?.weight_map;
  if (typeof map !== "object" || map === null) return [];
  const names = [...new Set(Object.values(map))];
  const isShard = (name: unknown): name is string => {
    return typeof name === "string" && dirname(name) === "." && name.endsWith(".safetensors");
  };
  return names.every(isShard) ? names.sort() : [];
}

// --- internal ---

/** What Python fetched, by what is there. */
function unrecorded(snapshot: string, use: HubUse): string | null {
  if (use === "model") return wholeSnapshot(snapshot);
  if (use === "file") return null;
  if (isWhole(snapshot, "vae")) return join(snapshot, "vae");
  return isWhole(snapshot, "") ? snapshot : null;
}

/** `snapshot`, if it has every file of a diffusers model: one that Python fetched. */
function wholeSnapshot(snapshot: string): string | null {
  const index = jsonOf(join(snapshot, "model_index.json"));
  if (index === null) return null;
  const isNeeded = (folder: string) => {
    const value = (index as Record<string, unknown>)[folder];
    return Array.isArray(value) && value[0] !== null;
  };
  return modelFolders.filter(isNeeded).every((folder) => isWhole(snapshot, folder))
    ? snapshot
    : null;
}

function isWhole(snapshot: string, folder: string): boolean {
  const has = (name: string) => isFile(join(snapshot, folder, name));
  const isTokenizer = folder.startsWith("tokenizer");
  if (isTokenizer && !has("tokenizer_config.json")) return false;
  if (isTokenizer) return has("tokenizer.json") || (has("vocab.json") && has("merges.txt"));
  if (!configNames(folder).every(has)) return false;
  const stem = weightStem(folder);
  if (stem === null) return true;
  return weightCandidates(stem).some((name) => {
    if (!name.endsWith(".json")) return has(name);
    const shards = shardNames(jsonOf(join(snapshot, folder, name)));
    return shards.length > 0 && shards.every(has);
  });
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function isFile(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
  } catch {
    return false;
  }
}

function jsonOf(path: string): object | null {
  try {
    const value: unknown = JSON.parse(readFileSync(path, "utf8"));
    return typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}
