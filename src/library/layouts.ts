/**
 * Which folders below a folder of models hold what: ComfyUI, A1111, Forge, SwarmUI and their kin
 * name them after kinds, and the cache of the Hugging Face hub after models. Only names are read.
 */
import { readdirSync, statSync } from "node:fs";
import { basename, dirname, extname, join } from "node:path";
import { escaped } from "../errors.ts";
import { cachedModels, snapshotOf } from "../models/hub-cache.ts";
import { readExtraPaths } from "./extra-paths.ts";
import { type KindFolder, kindByName, type Warn } from "./kinds.ts";

/**
 * The folders of models below `root`, an absolute path of one of the known layouts, of a plain
 * folder, or of a file like ComfyUI's extra_model_paths.yaml.
 */
export function kindFoldersOf(root: string, warn: Warn): KindFolder[] {
  const stat = statOf(root);
  if (stat?.isFile() && /^\.ya?ml$/i.test(extname(root))) return extraFolders(root, warn);
  if (!stat?.isDirectory()) {
    const what = stat === undefined ? "does not exist or cannot be read" : "is not a folder";
    warn(`The folder of models ${escaped(root, 300)} ${what}.`);
    return [];
  }
  const names = foldersIn(root);
  if (names.some((name) => name.startsWith("models--"))) return hubFolders(root, warn);
  const models = names.find((name) => name.toLowerCase() === "models");
  const inside = models === undefined ? [] : kindsBelow(join(root, models));
  const yaml = join(root, "extra_model_paths.yaml");
  const extra = statOf(yaml)?.isFile() ? extraFolders(yaml, warn) : [];
  if (models !== undefined && inside.length > 0) {
    const rest: KindFolder = { path: join(root, models), kind: "any" };
    return [...inside, ...embeddingsOf(root), ...extra, rest];
  }
  const beside = basename(root).toLowerCase() === "models" ? embeddingsOf(dirname(root)) : [];
  return [...kindsBelow(root), ...beside, ...extra, { path: root, kind: "any" }];
}

// --- internal ---

/** Folders in `folder` whose names say what they are for; none where only "other" ones do. */
function kindsBelow(folder: string): KindFolder[] {
  const found = foldersIn(folder).flatMap((name) => {
    const kind = kindByName(name);
    return kind === undefined ? [] : [{ path: join(folder, name), kind }];
  });
  // A diffusers folder has a `vae` and a `unet`: it is one model.
  const isModel = statOf(join(folder, "model_index.json")) !== undefined;
  return isModel || found.every(({ kind }) => kind === "other") ? [] : found;
}

/** A1111 keeps embeddings beside its folder `models`. */
function embeddingsOf(root: string): KindFolder[] {
  return foldersIn(root)
    .filter((name) => name.toLowerCase() === "embeddings")
    .map((name) => ({ path: join(root, name), kind: "embedding" }));
}

function extraFolders(yaml: string, warn: Warn): KindFolder[] {
  return readExtraPaths(yaml, warn).flatMap(({ name, path }) => {
    if (statOf(path)?.isDirectory()) return [{ path, kind: kindByName(name) ?? "other" }];
    warn(`${escaped(yaml, 300)} names the folder ${escaped(path, 300)}, which is not there.`);
    return [];
  });
}

/** The current snapshot of each model. */
function hubFolders(root: string, warn: Warn): KindFolder[] {
  return cachedModels(root).flatMap(({ name, root: model }) => {
    try {
      const path = snapshotOf(model);
      return path === null ? [] : [{ path, kind: "any" as const, prefix: name }];
    } catch (error) {
      warn((error as Error).message);
      return [];
    }
  });
}

/** Names of the folders in `folder`, sorted, links to folders too. */
function foldersIn(folder: string): string[] {
  try {
    return readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() || isFolderLink(folder, entry))
      .map(({ name }) => name)
      .sort();
  } catch {
    return [];
  }
}

function isFolderLink(folder: string, entry: { name: string; isSymbolicLink(): boolean }) {
  return entry.isSymbolicLink() && statOf(join(folder, entry.name))?.isDirectory() === true;
}

/** undefined also where the path leads in a circle, through a file, or cannot be looked at. */
function statOf(path: string) {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}
