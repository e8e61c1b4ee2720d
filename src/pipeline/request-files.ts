/**
 * Finds the files that requests name: paths, or names in the folders of models.
 */
import type { ModelKind } from "../library/kinds.ts";
import { Library, modelFolders } from "../library/resolve.ts";
import { findModelFile } from "../models/hub-files.ts";
import { resources } from "../resources.ts";

/** The ControlNet of outlines for the bundled model. */
export const bundledControlNetName = "mini-outlines";

export type RequestFileKind = Exclude<ModelKind, "checkpoint" | "vae" | "taesd">;

export interface RequestFiles {
  /**
   * The absolute path of what `value` names, also in the hub's cache. Throws "bad-model" where
   * there is none.
   */
  find(kind: RequestFileKind, value: string): string;
  /** Those in the folders of models that the user has named, which are listed once. */
  embeddings(): FolderEmbeddings;
}

interface FolderEmbeddings {
  /** Paths by names in lower case. */
  paths: ReadonlyMap<string, string>;
  /** About folders that cannot be read. */
  warnings: readonly string[];
}

/** `modelsDir` is as in `PrepareOptions`. */
export function requestFiles(modelsDir?: string | readonly string[]): RequestFiles {
  const folders = modelFolders(modelsDir);
  // The hub's cache has no folder of embeddings.
  const library = new Library(modelFolders(modelsDir, process.env, { withHub: false }));
  return {
    find(kind, value) {
      const isBundled = kind === "controlnet" && value === bundledControlNetName;
      return isBundled ? resources.bundledControlNet() : findModelFile(kind, value, folders);
    },
    embeddings: () => ({ paths: library.embeddingsByName(), warnings: library.warnings }),
  };
}
