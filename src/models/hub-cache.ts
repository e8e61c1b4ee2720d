/**
 * The cache of huggingface_hub: `models--ORG--NAME` holds `snapshots/COMMIT`, which are model
 * folders of links, and `refs/BRANCH`, text files with the commit that a branch points to.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { BasedXLError, escaped } from "../errors.ts";

/**
 * The snapshot that `refs/main` names, or the only one, of the cached model whose root, or whose
 * folder of snapshots, is `path`; null where it is no model of the cache. Throws "bad-model" where
 * the current snapshot is not known.
 */
export function snapshotOf(path: string): string | null {
  const root = basename(path) === "snapshots" ? dirname(path) : path;
  if (isFile(join(root, "model_index.json")) || !isFolder(join(root, "snapshots"))) return null;
  const names = namesIn(join(root, "snapshots"));
  const current = readRef(join(root, "refs", "main"));
  const refuse = (problem: string) => new BasedXLError("bad-model", `${root} ${problem}.`);
  if (current !== null) {
    if (names.includes(current)) return join(root, "snapshots", current);
    const shown = escaped(current, 60);
    throw refuse(
      `has no snapshot ${shown}, which its refs/main names; \`basedxl pull\` fetches it`,
    );
  }
  if (names.length === 1) return join(root, "snapshots", names[0]!);
  if (names.length === 0) throw refuse("has no snapshot; `basedxl pull` fetches it");
  const list = names.slice(0, 3).map((name) => escaped(name, 60));
  throw refuse(
    `has ${names.length} snapshots and no refs/main to choose one; name one of them, such as ` +
      `snapshots/${list.join(", snapshots/")}`,
  );
}

/** The models of the cache in `folder`, by name: "org/name" and the root. */
export function cachedModels(folder: string): { name: string; root: string }[] {
  return namesIn(folder)
    .filter((name) => name.startsWith("models--"))
    .map((name) => ({ name: name.split("--").slice(1).join("/"), root: join(folder, name) }));
}

// --- internal ---

/** The commit in the file `path`; null where there is none. */
function readRef(path: string): string | null {
  if (!isFile(path)) return null;
  let commit: string;
  try {
    commit = readFileSync(path, "utf8").trim();
  } catch {
    return null;
  }
  return commit === basename(commit) && commit !== "" && commit !== ".." ? commit : null;
}

function isFile(path: string): boolean {
  return statOf(path)?.isFile() ?? false;
}

function isFolder(path: string): boolean {
  return statOf(path)?.isDirectory() ?? false;
}

/** undefined also where the path leads in a circle or through a file. */
function statOf(path: string) {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

/** Sorted; empty where there is no such folder. */
function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => isFolder(join(folder, name)))
      .sort();
  } catch {
    return [];
  }
}
