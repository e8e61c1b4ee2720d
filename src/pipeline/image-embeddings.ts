/**
 * The embeddings of a request: those that its prompts mention, of the setting, of its LoRAs and of
 * the folders of embeddings, in this order where names are equal.
 */
import { basename } from "node:path";
import type { PlannedLora } from "../adapters/plan.ts";
import {
  bundledEmbeddings,
  EmbeddingCatalog,
  EmbeddingTable,
  embeddingFile,
} from "../embeddings.ts";
import { escaped } from "../errors.ts";
import type { Model } from "../models/model.ts";
import type { EmbeddingChoice } from "../settings/embedding.ts";
import type { RequestFiles } from "./request-files.ts";

interface Sources {
  choices: readonly EmbeddingChoice[];
  loras: readonly PlannedLora[];
  files: RequestFiles;
  /** How messages name the setting. */
  flag: string;
}

interface WithEmbeddings {
  embeddings: EmbeddingTable;
  /** One sentence each. */
  warnings: string[];
}

/**
 * Those that `texts` mention: pieces of prompts. Throws "bad-option", "bad-model" and "bad-weights"
 * for what cannot be found or read.
 */
export function embeddingsOf(
  texts: ReadonlySet<string>,
  model: Model,
  { choices, loras, files, flag }: Sources,
): WithEmbeddings {
  const given = choices.map(({ file, name }) => {
    const path = files.find("embedding", file);
    return embeddingFile(name ?? basename(path).replace(/\.\w+$/, ""), path);
  });
  const bundled = loras.flatMap(({ file }) => bundledEmbeddings(file.header));
  const inFolders = files.embeddings();
  const catalog = new EmbeddingCatalog([...given, ...bundled], inFolders.paths);
  const embeddings = new EmbeddingTable(catalog, model, texts);
  const isUsed = (path: string) => embeddings.used.some((each) => each.path === path);
  const unused = given.filter(({ path }) => !isUsed(path));
  const warnings = unused.map(
    ({ name, path }) =>
      `${flag} ${escaped(path, 300)} is not used: no prompt has the word "${escaped(name, 100)}".`,
  );
  return { embeddings, warnings: [...inFolders.warnings, ...embeddings.warnings, ...warnings] };
}
