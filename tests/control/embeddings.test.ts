/**
 * Textual inversion before anything is computed: which files are embeddings, where prompts mention
 * one, and which token ids follow.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { settingsOf } from "../../src/distributed/settings.ts";
import { bundledEmbeddings, embeddingFile } from "../../src/embeddings/file.ts";
import { mentionSplitter } from "../../src/embeddings/words.ts";
import { EmbeddingCatalog, EmbeddingTable } from "../../src/embeddings.ts";
import { BasedXLError } from "../../src/errors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { readSafetensorsHeader } from "../../src/models/safetensors-header.ts";
import type { GpuOptions } from "../../src/native/handle.ts";
import { PromptEncoder } from "../../src/pipeline/prompts.ts";
import { type GenerateRequest, planRequest } from "../../src/pipeline/request.ts";
import {
  embeddingFiles,
  embeddingTensors,
  newFolder,
  notes,
  removeEmbeddings,
  writeTensors,
  zeros,
} from "../support/embedding-files.ts";
import type { RawTensor } from "../support/model-copy.ts";
import { refusal } from "../support/refusal.ts";

afterAll(removeEmbeddings);

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const files = embeddingFiles();
const pathOf = (name: string) => files.get(name)!;
const vocabulary = model.clip2.vocabSize;
const inFolder = () => new EmbeddingCatalog([], files);

function fileWith(tensors: Record<string, RawTensor>): string {
  return writeTensors(newFolder(), "odd.safetensors", new Map(Object.entries(tensors)));
}

const read = (path: string) => embeddingFile("odd", path).read(model);

function encode(prompt: string, catalog = inFolder()) {
  const table = new EmbeddingTable(catalog, model, [prompt]);
  const warnings = [...table.warnings];
  const encoder = new PromptEncoder(model, (warning) => void warnings.push(warning), {
    embeddings: table,
  });
  return { ...encoder.prompt(prompt), table, warnings };
}

describe("a file", () => {
  test("has vectors for both encoders, and the file's hash", () => {
    const style = embeddingFile("blot-style", pathOf("blot-style")).read(model);
    expect(style).toMatchObject({ name: "blot-style", vectorCount: 3, warnings: [] });
    expect(style.rows?.length).toBe(3 * 64);
    expect(style.rows2?.length).toBe(3 * 128);
    const hasher = new Bun.CryptoHasher("sha256").update(readFileSync(pathOf("blot-style")));
    expect(style.hash).toBe(hasher.digest("hex").slice(0, 12));
  });

  test("may be without one encoder's, which a warning says", () => {
    const { rows2, warnings } = embeddingFile("half", pathOf("half")).read(model);
    expect(rows2).toBeNull();
    expect(warnings).toEqual([
      `${pathOf("half")} has no clip_g: the second text encoder reads the prompt without half.`,
    ]);
  });

  test("may hold a single vector, and be named as diffusers' trainer does", () => {
    const path = fileWith({ text_encoders_0: zeros(64), text_encoders_1: zeros(1, 128) });
    expect(read(path)).toMatchObject({ vectorCount: 1, warnings: [] });
  });

  test.each([
    ["emb_params", [8, 768], "Stable Diffusion 1"],
    ["<concept>", [768], "Stable Diffusion 1"],
    ["string_to_param.*", [2, 768], "Stable Diffusion 1"],
    ["emb_params", [1, 1024], "Stable Diffusion 2"],
  ])("with %s of shape %p is refused as one for %s", async (key, shape, name) => {
    for (const more of [{}, key === "<concept>" ? {} : { step: zeros(1) }]) {
      const path = fileWith({ [key]: zeros(...shape), ...more } as Record<string, RawTensor>);
      const sentence = await refusal(() => read(path), "bad-weights");
      expect(sentence).toContain(`is an embedding for ${name} (vectors of`);
    }
  });

  test("of another kind, width or content is refused", async () => {
    const refused = (tensors: Record<string, RawTensor>) =>
      refusal(() => read(fileWith(tensors)), "bad-weights");
    expect(await refused({ a: zeros(1), b: zeros(2, 2) })).toEndWith(
      "is no embedding for SDXL: it has a, b, not clip_l and clip_g.",
    );
    expect(await refused({ "lora_te1_a.lora_down.weight": zeros(1, 1) })).toEndWith(
      "is a LoRA for SDXL, not an embedding for SDXL.",
    );
    expect(await refused({ clip_l: zeros(2, 768), clip_g: zeros(2, 1280) })).toEndWith(
      "has clip_l of shape [2, 768], but the model's first text encoder reads vectors of 64.",
    );
    expect(await refused({ clip_g: zeros(0, 128) })).toContain("has clip_g of shape [0, 128]");
    const nan = { dtype: "F16", shape: [1, 64], bytes: new Uint8Array(128).fill(255) };
    expect(await refused({ clip_l: nan })).toEndWith("has a number in clip_l that is not finite.");
  });

  test("that is pickled is refused with a way to convert it", async () => {
    const sentence = await refusal(() => read("/models/sad.pt"), "bad-weights");
    expect(sentence).toStartWith("/models/sad.pt is a pickled file, which can run code");
    expect(sentence).toContain('torch.load("sad.pt", weights_only=True)');
  });

  test("of a LoRA brings embeddings along by their names", () => {
    const tensors = embeddingTensors("bad_mood", "bundle_emb.bad_mood.");
    tensors.set("bundle_emb.old one.string_to_param.*", zeros(1, 768));
    tensors.set("lora_unet_a.alpha", zeros(1));
    const header = readSafetensorsHeader(writeTensors(newFolder(), "lora.safetensors", tensors));
    const [mood, old, ...more] = bundledEmbeddings(header);
    expect([mood?.name, old?.name, more.length]).toEqual(["bad_mood", "old one", 0]);
    const alone = embeddingFile("bad_mood", pathOf("bad_mood")).read(model);
    expect(mood?.read(model).rows).toEqual(alone.rows);
    expect(mood?.read(model).rows2).toEqual(alone.rows2);
    expect(() => old?.read(model)).toThrow("is an embedding for Stable Diffusion 1");
  });
});

test("any tensors under any names are an embedding, or refused in one sentence", () => {
  const place = newFolder();
  const key = fc.oneof(
    fc.constantFrom("clip_l", "clip_g", "emb_params", "text_encoders_0", "string_to_param.*"),
    fc.constantFrom("bundle_emb.x.clip_l", "bundle_emb.x.clip_g", "bundle_emb.\n.clip_g"),
    fc.string({ unit: "binary", maxLength: 8 }),
  );
  const width = fc.constantFrom(0, 1, 64, 128, 768, 1024);
  const shape = fc.oneof(fc.array(width, { maxLength: 1 }), fc.tuple(fc.nat(3), width));
  const tensor = fc.record({ shape, dtype: fc.constantFrom("F16", "BF16", "I16", "U8") });
  const entries = fc.uniqueArray(fc.tuple(key, tensor), {
    maxLength: 4,
    selector: ([name]) => name,
  });
  fc.assert(
    fc.property(entries, (all) => {
      const tensors = all.map(([name, { dtype, shape }]) => {
        const { bytes } = zeros(...shape);
        const raw = dtype === "U8" ? bytes.subarray(0, bytes.length / 2) : bytes;
        return [name, { dtype, shape, bytes: raw }] as const;
      });
      const path = writeTensors(place, "any.safetensors", new Map(tensors));
      const bundled = bundledEmbeddings(readSafetensorsHeader(path));
      for (const source of [embeddingFile("any", path), ...bundled]) {
        try {
          expect(source.read(model).vectorCount).toBeGreaterThan(0);
        } catch (error) {
          if (!(error instanceof BasedXLError)) throw error;
          expect(error.message).toMatch(/^[^\p{Cc}]*\.$/u);
        }
      }
    }),
    { numRuns: 500 },
  );
}, 60_000);

test("a model with the second text encoder alone takes its half", () => {
  const alone = { clip: null, clip2: model.clip2 };
  const { rows, rows2, vectorCount, warnings } = embeddingFile("a", pathOf("bad_mood")).read(alone);
  expect([rows, rows2?.length, vectorCount, warnings]).toEqual([null, 2 * 128, 2, []]);
});

describe("mentions in a prompt", () => {
  const split = mentionSplitter(["bad_mood", "bad", "blot-style", "größe"], ["bad_mood"]);
  const names = (text: string) =>
    split(text).flatMap((part) => (typeof part === "string" ? [] : [part.name]));

  test.each([
    ["a cat, bad_mood, red", ["bad_mood"]],
    ["BAD_Mood", ["BAD_Mood"]],
    ["(bad_mood:1.2), bad", ["bad_mood", "bad"]],
    ["badly bad_moods abad bad_ bad2", []],
    ["blot-style-blot-style", ["blot-style", "blot-style"]],
    ["GRO\u0308SSE gro\u0308ße", ["größe"]],
    ["embedding:bad_mood, x", ["bad_mood"]],
    ["embedding:sad, x (embedding:other:1.1)", ["sad", "other"]],
    ["<embed:bad_mood> <embedding: sad > <lora:bad_mood:1>", ["bad_mood", "sad", "bad_mood"]],
  ])("%p", (text, expected) => {
    expect(names(text)).toEqual(expected);
  });

  test("of any text and names: what is left is as it was", () => {
    const letter = fc.constantFrom(..."ab-_.é 1(<:");
    const name = fc.string({ unit: letter, minLength: 1, maxLength: 4 });
    const text = fc.string({ unit: fc.constantFrom(..."ab-_.é 1(<:>,", "embedding:", "<embed:") });
    fc.assert(
      fc.property(fc.array(name, { maxLength: 4 }), text, (all, prompt) => {
        const parts = mentionSplitter(all, all)(prompt);
        let rest = prompt;
        for (const part of parts) {
          const found = typeof part === "string" ? part : part.name;
          expect(rest).toContain(found);
          rest = rest.slice(rest.indexOf(found) + found.length);
        }
      }),
    );
  });

  test("are cut out, and all else stays as it is", () => {
    expect(split("A  bad\tday")).toEqual(["A  ", { name: "bad", explicit: false }, "\tday"]);
    expect(split("<EMBED:x>")).toEqual([{ name: "x", explicit: true }]);
    expect(mentionSplitter([], [])("bad mood")).toEqual(["bad mood"]);
  });
});

describe("token ids", () => {
  test("of an embedding stand behind the vocabulary, one for each vector", () => {
    const { ids, ids2, table, warnings } = encode(notes.prompts.two!);
    const [mood, style] = [vocabulary, vocabulary + 2];
    const placed = (all: Int32Array) => [...all].filter((id) => id >= vocabulary);
    expect(placed(ids)).toEqual([mood, mood + 1, style, style + 1, style + 2]);
    expect(placed(ids2)).toEqual(placed(ids));
    expect([...ids.slice(1, 3)]).toEqual([mood, mood + 1]);
    expect([table.rows.length, table.rows2.length]).toEqual([5 * 64, 5 * 128]);
    expect(warnings).toEqual([]);
  });

  test("are the same for each way to write it", () => {
    const bare = encode("a blot-style house").ids;
    for (const written of ["Blot-Style", "embedding:blot-style", "<embed:blot-style>"]) {
      expect(encode(`a ${written} house`).ids).toEqual(bare);
    }
    expect(encode("a embedding:blot-style.safetensors house").ids).toEqual(bare);
  });

  test("are left out for an encoder that the file has no vectors for", () => {
    const { ids, ids2, warnings } = encode(notes.prompts.half!);
    expect([...ids].filter((id) => id >= vocabulary)).toEqual([vocabulary]);
    expect(ids2).toEqual(model.tokenizer2.encode("a photo of above a blue square").ids);
    expect(warnings).toHaveLength(1);
  });

  test("are cut at 77, which a warning says by the embedding's name", () => {
    const { ids, endIndex2, warnings } = encode(notes.prompts.cut!);
    expect([...ids.slice(73)]).toEqual([ids[72]!, vocabulary, vocabulary + 1, ids[76]!]);
    expect(endIndex2).toBe(76);
    expect(warnings).toEqual([
      'The prompt is longer than 77 tokens; left out: "blot-style and a blue square".',
    ]);
  });

  test("never move the end of the text, also where a config has the wrong id 2 of it", async () => {
    const { loadTokenizer } = await import("../../src/prompt/tokenizer.ts");
    const tokenizer = await loadTokenizer(join(model.path, "tokenizer_2"), 2);
    const word = { word: "x", ids: [vocabulary, vocabulary + 1] };
    const { ids, endIndex } = tokenizer.encode(["red ", word, " house"]);
    expect(ids[endIndex]).toBe(model.clip2.eosTokenId);
    expect(endIndex).toBe(tokenizer.encode("red house").endIndex + 2);
  });
});

describe("a request", () => {
  const noFiles = {
    find: (_: string, value: string) => value,
    embeddings: () => ({ paths: new Map<string, string>(), warnings: ["A folder is gone."] }),
  };
  const plan = (request: Partial<GenerateRequest>) =>
    planRequest({ prompt: "x", ...request }, model, 1, (key) => key, noFiles);

  test("reads the embeddings of all its prompts, once each", () => {
    const embeddings = [...files.values()].map((file) => ({ file }));
    const { embeddings: table, warnings } = plan({
      prompt: ["bad_mood", "blot-style bad_mood"],
      negativePrompt: [null, "bad_mood half"],
      seeds: [1n, 2n],
      embeddings,
    });
    expect(table.used.map(({ name }) => name)).toEqual(["bad_mood", "blot-style", "half"]);
    expect(warnings).toEqual(["A folder is gone.", expect.stringContaining("has no clip_g")]);
  });

  test("reads no negative prompt without guidance", () => {
    const { embeddings: table, warnings } = plan({
      negativePrompt: "half",
      guidanceScale: 1,
      embeddings: [{ file: pathOf("half") }],
    });
    expect(table.used).toEqual([]);
    expect(warnings).toContain(
      `embeddings ${pathOf("half")} is not used: no prompt has the word "half".`,
    );
  });

  test("knows the embeddings of its LoRAs", () => {
    const tensors = embeddingTensors("bad_mood", "bundle_emb.bad_mood.");
    tensors.set("lora_unet_conv_in.lora_down.weight", zeros(1, 4, 3, 3));
    tensors.set(
      "lora_unet_conv_in.lora_up.weight",
      zeros(model.unet.blockOutChannels[0]!, 1, 1, 1),
    );
    const file = writeTensors(newFolder(), "brings.safetensors", tensors);
    const { embeddings, warnings } = plan({ prompt: "bad_mood", loras: [{ file }] });
    expect(embeddings.used).toMatchObject([{ name: "bad_mood", path: file }]);
    expect(warnings).toEqual(["A folder is gone."]);
  });

  test("compares what its embeddings hold with other processes, not where they are", () => {
    const settings = (name: string, file: string) => {
      const request = plan({ prompt: name, embeddings: [{ file, name }] });
      const gpu = {} as GpuOptions;
      const facts = { version: "1", model, rankCount: 1, gpu, seedIsRandom: true };
      return settingsOf(request, facts)["--embedding"];
    };
    const copy = writeTensors(newFolder(), "b.safetensors", embeddingTensors("bad_mood"));
    const own = settings("sad", pathOf("bad_mood"));
    expect(own).toMatch(/^sad [0-9a-f]{12}$/);
    expect(settings("sad", copy)).toBe(own!);
    expect(settings("sad", pathOf("blot-style"))).not.toBe(own!);
  });
});

describe("names", () => {
  test("open no file before a prompt mentions one", () => {
    const catalog = new EmbeddingCatalog([], new Map([["gone", "/nowhere/gone.safetensors"]]));
    expect(encode("a red house", catalog).table.used).toEqual([]);
    expect(() => encode("embedding:gone", catalog)).toThrow("/nowhere/gone.safetensors");
  });

  test("with a sub-folder are read behind a mark alone", () => {
    const path = pathOf("half");
    const catalog = new EmbeddingCatalog([], new Map([["xl/half", path]]));
    for (const name of ["xl/half", "XL\\half", "xl/half.safetensors"]) {
      expect(encode(`<embed:${name}>`, catalog).table.used).toHaveLength(1);
      expect(encode(`embedding:${name}, x`, catalog).table.used).toHaveLength(1);
    }
    expect(encode("xl/half half", catalog).table.used).toHaveLength(0);
  });

  test("that are given come before those of folders", () => {
    const other = embeddingFile("Bad_Mood", pathOf("blot-style"));
    const { table } = encode("bad_mood", new EmbeddingCatalog([other], files));
    expect(table.used.map(({ path }) => path)).toEqual([pathOf("blot-style")]);
  });

  test("that are not there are refused behind a mark, with the nearest", async () => {
    const sentence = await refusal(() => encode("embedding:bad_moot"), "bad-option");
    expect(sentence).toContain('asks for the embedding "bad_moot"');
    expect(sentence).toEndWith("Did you mean bad_mood?");
    // A prompt may come from a stranger.
    const path = await refusal(() => encode(`<embed:${pathOf("half")}>`), "bad-option");
    expect(path).toContain("asks for the embedding");
  });

  test("of files for another model stay words, unless they are meant", async () => {
    const old = fileWith({ emb_params: zeros(1, 768) });
    const catalog = new EmbeddingCatalog([], new Map([["sad", old]]));
    const { ids, warnings } = encode("a sad house", catalog);
    expect(ids).toEqual(model.tokenizer!.encode("a sad house").ids);
    expect(warnings).toEqual([expect.stringMatching(/^"sad" is read as text: .* Diffusion 1/)]);
    expect(await refusal(() => encode("embedding:sad", catalog), "bad-weights")).toContain(
      "Stable Diffusion 1",
    );
    const given = new EmbeddingCatalog([embeddingFile("sad", old)]);
    expect(await refusal(() => encode("sad", given), "bad-weights")).toContain("Diffusion 1");
  });
});
