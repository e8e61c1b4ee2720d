/**
 * Textual inversion: words of a prompt that stand for trained vectors instead of tokens. The
 * vectors travel with a request; nothing of the model changes.
 *
 * In reading order: `embeddings/file.ts` (vectors in safetensors files, alone or bundled in a
 * LoRA), `catalog.ts` (which names there are), `words.ts` (where a prompt mentions one),
 * `table.ts` (the vectors of all prompts of a request, and their token ids), `report.ts` (what is
 * said of them).
 */
export { EmbeddingCatalog } from "./embeddings/catalog.ts";
export { bundledEmbeddings, embeddingFile } from "./embeddings/file.ts";
export { EmbeddingTable } from "./embeddings/table.ts";
