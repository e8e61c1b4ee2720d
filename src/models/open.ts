/**
 * Opens a model at a path: a diffusers folder or a checkpoint in one file.
 */
import { statSync } from "node:fs";
import { BasedXLError, escaped } from "../errors.ts";
import { absolutePath, expandHome } from "../paths.ts";
import { openModelFolder } from "./folder.ts";
import type { Model } from "./model.ts";
import { openSingleFile, type SingleFileOptions } from "./single-file.ts";

/** Throws "bad-model" or "bad-weights" with what is wrong; see either way of opening. */
export async function openModel(path: string, options: SingleFileOptions = {}): Promise<Model> {
  const root = absolutePath(path);
  const { config } = options;
  if (statSync(root, { throwIfNoEntry: false })?.isFile()) {
    const folder = config === undefined ? undefined : expandHome(config);
    return await openSingleFile(root, { ...options, config: folder });
  }
  if (config !== undefined) {
    throw new BasedXLError(
      "bad-model",
      `${escaped(root, 300)} is no checkpoint in one file: a folder has its own configs, and ` +
        "--config is not for it.",
    );
  }
  return await openModelFolder(root);
}
