/**
 * Finds the files that requests name: paths, or names in the folders of models.
 */
import { Library, modelFolders, resolveModelFile } from "../library/resolve.ts";

export interface RequestFiles {
  /** The absolute path of what `value` names. Throws "bad-model" where there is none. */
  find(kind: "lora" | "embedding", value: string): string;
  /**
   * The paths of all embeddings in the folders of models by name, in lower case. The folders are
   * read once; those that the user has not named hold none.
   */
  embeddings(): ReadonlyMap<string, string>;
}

/** `modelsDir` is as in `PrepareOptions`. */
export function requestFiles(modelsDir?: string | readonly string[]): RequestFiles {
  const folders = modelFolders(modelsDir);
  let names: ReadonlyMap<string, string> | null = null;
  return {
    find: (kind, value) => resolveModelFile(kind, value, folders),
    embeddings() {
      const named = modelFolders(modelsDir, process.env, { withHub: false });
      names ??= new Library(named).embeddingsByName();
      return names;
    },
  };
}
