/**
 * Textual inversion on the emulated GPU: text states as on the CPU, in any order of prompts with
 * embeddings and without, whose graphs are captured apart.
 */
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { relativeL2From } from "../../src/bench/support/references.ts";
import { readSafetensors } from "../../src/bench/support/safetensors.ts";
import { EmbeddingCatalog, EmbeddingTable } from "../../src/embeddings.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { nativeModelOf } from "../../src/models/native-model.ts";
import { ModelParts } from "../../src/native/testing.ts";
import { PromptEncoder } from "../../src/pipeline/prompts.ts";
import { embeddingFiles, notes, removeEmbeddings } from "../support/embedding-files.ts";
import { emulated } from "../support/emulator.ts";

// Emulated threads are slow, and the cores may be busy.
setDefaultTimeout(240_000);

afterAll(removeEmbeddings);

const fixtures = join(import.meta.dir, "../fixtures");
const recorded = readSafetensors(join(fixtures, "embeddings.safetensors"));
const model = await openModelFolder(join(fixtures, "golden/model"));
const catalog = new EmbeddingCatalog([], embeddingFiles());

test.each(["f16", "bf16"] as const)("prompts with embeddings, in %s", async (dtype) => {
  const parts = await ModelParts.open(nativeModelOf(model), { gpu: emulated({ dtype }) });
  const embed = async (prompt: string) => {
    const table = new EmbeddingTable(catalog, model, [prompt]);
    const tokens = new PromptEncoder(model, () => {}, table).prompt(prompt);
    return await parts.promptEmbeds(tokens, table);
  };
  try {
    const plain = await embed("a photo of a red circle");
    for (const name of ["two", "one", "half", "two"]) {
      const { promptEmbeds, pooled } = await embed(notes.prompts[name]!);
      const states = relativeL2From(recorded, `text.${name}.prompt_embeds`, promptEmbeds);
      const ends = relativeL2From(recorded, `text.${name}.pooled`, pooled);
      // Some ten roundings to 11 bits, or to 8.
      expect(Math.max(states, ends)).toBeLessThanOrEqual(dtype === "f16" ? 5e-3 : 4e-2);
      expect(await embed("a photo of a red circle")).toEqual(plain);
    }
  } finally {
    await parts.close();
  }
});
