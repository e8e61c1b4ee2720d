/**
 * What is said of a request's embeddings: lines for people, and objects for programs.
 */
import { escaped } from "../errors.ts";
import type { Embedding } from "./file.ts";

/** An embedding of a request, for output in JSON. */
export interface EmbeddingReport {
  name: string;
  path: string;
  /** How many vectors stand for its name. */
  vectors: number;
  /** AutoV3 of a file of its own. */
  hash: string;
}

export function embeddingLines(used: readonly Embedding[]): string[] {
  return used.map(({ name, path, vectorCount, hash }) => {
    const vectors = vectorCount === 1 ? "1 vector" : `${vectorCount} vectors`;
    return `Embedding ${escaped(name, 100)}: ${vectors} of ${escaped(path, 300)}, ${hash}.`;
  });
}

export function reportEmbeddings(used: readonly Embedding[]): EmbeddingReport[] {
  return used.map(({ name, path, vectorCount, hash }) => {
    return { name, path, vectors: vectorCount, hash };
  });
}
