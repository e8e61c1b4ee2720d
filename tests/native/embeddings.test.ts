/**
 * Textual inversion through the text encoders, against diffusers with the same vectors in its
 * vocabularies.
 */

import { afterAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { relativeL2From } from "../../src/bench/support/references.ts";
import { readSafetensors } from "../../src/bench/support/safetensors.ts";
import { EmbeddingCatalog, EmbeddingTable } from "../../src/embeddings.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { nativeModelOf } from "../../src/models/native-model.ts";
import { ModelParts } from "../../src/native/testing.ts";
import { PromptEncoder } from "../../src/pipeline/prompts.ts";
import { embeddingFiles, notes, removeEmbeddings } from "../support/embedding-files.ts";
import { measured } from "../support/measured.ts";

afterAll(removeEmbeddings);

const fixtures = join(import.meta.dir, "../fixtures");
const recorded = readSafetensors(join(fixtures, "embeddings.safetensors"));
const model = await openModelFolder(join(fixtures, "golden/model"));
const catalog = new EmbeddingCatalog([], embeddingFiles());

describe("text encoders with embeddings", () => {
  test.each(Object.keys(notes.prompts))("%s", async (name) => {
    const prompt = notes.prompts[name]!;
    const table = new EmbeddingTable(catalog, model, [prompt]);
    const tokens = new PromptEncoder(model, () => {}, { embeddings: table }).prompt(prompt);
    const parts = await ModelParts.open(nativeModelOf(model), { threadCount: 1 });
    try {
      const { promptEmbeds, pooled } = await parts.promptEmbeds(tokens, table);
      const error = (what: string, ours: Float32Array) =>
        measured(`${name}, ${what}`, relativeL2From(recorded, `text.${name}.${what}`, ours), 1e-5);
      expect(error("prompt_embeds", promptEmbeds)).toBeLessThanOrEqual(1e-5);
      expect(error("pooled", pooled)).toBeLessThanOrEqual(1e-5);
    } finally {
      await parts.close();
    }
  });
});
