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
import { drawLatents, latentsOf, requestOf, type Work, withSession } from "../support/draw.ts";
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
    const tokens = new PromptEncoder(model, () => {}, { embeddings: table }).prompt(prompt);
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

test("a session that alternates between prompts: bits of fresh ones, no new graphs", async () => {
  const base: Work = { model, width: 64, height: 32, stepCount: 1, gpu: emulated() };
  const workOf = (prompt: string): Work => ({
    ...base,
    prompt,
    embeddings: new EmbeddingTable(catalog, model, [prompt, "blurry"]),
  });
  const works = ["a circle", "blot-style", "a bad_mood circle"].map(workOf);
  const fresh = await Promise.all(works.map(drawLatents));
  await withSession(base, async (session) => {
    for (const round of [1, 2]) {
      for (const [index, work] of works.entries()) {
        const image = await session.image(requestOf(work));
        expect(latentsOf(image)).toEqual(fresh[index]!);
        if (round === 2) expect(image.ranks[0]?.graphsCaptured).toBe(0);
        if (round === 2) expect(image.ranks[0]?.graphsReplayed).toBeGreaterThan(0);
      }
    }
  });
});
