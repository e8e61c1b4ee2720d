/**
 * Tokenizers in both layouts of files, with one of these changed. The vocabulary has a few words,
 * for most of the time would go into parsing the same ones again; now and then it is a model's.
 */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadTokenizer } from "../../../src/prompt/tokenizer.ts";
import { readVocabulary, type Vocabulary } from "../../../src/prompt/vocabulary.ts";
import { golden } from "../../support/linked-model.ts";
import { mutateJson, mutateText } from "../mutate.ts";
import type { Random } from "../random.ts";
import { target } from "../target.ts";

interface Changed {
  folder: keyof typeof folders;
  name: string;
  text: string;
}

const vocab: Record<string, number> = Object.fromEntries(
  [
    ...["a", "r", "e", "d", "1", "!", "re", "a</w>", "r</w>", "e</w>", "d</w>", "1</w>", "!</w>"],
    ...["red</w>", "ar", "<|startoftext|>", "<|endoftext|>"],
  ].map((word, id) => [word, id]),
);
const merges = ["r e", "re d</w>", "a r"];
const special = { bos_token: "<|startoftext|>", eos_token: "<|endoftext|>", pad_token: "!" };
const flags = { lstrip: false, rstrip: true, normalized: true, single_word: true };
const added = { content: "<new>", special: false, ...flags };
const settings = {
  ...{ ...special, model_max_length: 77, padding_side: "right", add_prefix_space: false },
  ...{ unk_token: { content: "<|endoftext|>", ...flags }, extra_special_tokens: ["<x>"] },
};
const words = "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";
const whole = {
  version: "1.0",
  ...{ truncation: null, padding: { direction: "Right" } },
  added_tokens: [
    { id: 15, content: "<|startoftext|>", special: true },
    { id: 17, ...added },
  ],
  normalizer: {
    type: "Sequence",
    normalizers: [
      { type: "NFC" },
      { type: "Replace", pattern: { Regex: "\\s+" }, content: " " },
      { type: "Lowercase" },
    ],
  },
  pre_tokenizer: {
    type: "Sequence",
    pretokenizers: [
      { type: "Split", pattern: { Regex: words }, behavior: "Removed", invert: true },
      { type: "ByteLevel", add_prefix_space: false, use_regex: true },
    ],
  },
  post_processor: { type: "RobertaProcessing" },
  model: { type: "BPE", end_of_word_suffix: "</w>", unk_token: "<|endoftext|>", vocab, merges },
};

const top = mkdtempSync(join(tmpdir(), "basedxl-fuzz-"));
/** Small vocabularies in the older layout and the newer one, and a model's. */
const folders = {
  older: join(top, "older"),
  newer: join(top, "newer"),
  golden: join(top, "golden"),
};
for (const folder of Object.values(folders)) mkdirSync(folder);
writeFileSync(join(folders.older, "vocab.json"), JSON.stringify(vocab));
writeFileSync(join(folders.older, "merges.txt"), `#version: 0.2\n${merges.join("\n")}\n`);
writeFileSync(join(folders.newer, "tokenizer.json"), JSON.stringify(whole));
cpSync(join(golden, "tokenizer"), folders.golden, { recursive: true });
const vocabularies: Partial<Record<Changed["folder"], Vocabulary>> = {
  older: await readVocabulary(folders.older),
  newer: await readVocabulary(folders.newer),
};

const jsonFiles = {
  "vocab.json": vocab,
  "special_tokens_map.json": { ...special, mask_token: { content: "<m>" } },
  "tokenizer_config.json": settings,
  "added_tokens.json": { "<new>": 17, "<new>_1": 18 },
} as const;
const withDecoder = { ...settings, added_tokens_decoder: { 17: added, 18: { content: "<y>" } } };
const keys = ["<new>", "a</w>", "cls_token", "additional_special_tokens", "18", "single_word"];

export const tokenizerTarget = target("tokenizers", changed, async ({ folder, name, text }) => {
  const path = join(folders[folder], name);
  const before = folder === "golden" || isVocabulary(name) ? readFileSync(path) : null;
  writeFileSync(path, text);
  try {
    // What did not change is not parsed again.
    const given = isVocabulary(name) ? null : (vocabularies[folder] ?? null);
    const tokenizer = await loadTokenizer(folders[folder], folder === "golden" ? 49407 : 16, given);
    tokenizer.encode("a <new> red1 \u{1f98a}");
  } finally {
    if (before === null) rmSync(path);
    else writeFileSync(path, before);
  }
});

// --- internal ---

function isVocabulary(name: string): boolean {
  return name in { "vocab.json": 1, "merges.txt": 1, "tokenizer.json": 1 };
}

function changed(random: Random): Changed {
  if (random.once(200)) {
    const name = random.pick(["vocab.json", "tokenizer_config.json"]);
    const json = JSON.parse(readFileSync(join(golden, "tokenizer", name), "utf8"));
    return { folder: "golden", name, text: mutateJson(random, json, keys) };
  }
  if (random.once(3)) {
    return { folder: "newer", name: "tokenizer.json", text: mutateJson(random, whole, keys) };
  }
  if (random.once(4)) {
    const pieces = ["\n", " ", "\r", "r e\n", "#version: 0.2\n", "a a a\n", "a r\n"];
    const text = mutateText(random, `#version: 0.2\n${merges.join("\n")}\n`, pieces);
    return { folder: "older", name: "merges.txt", text };
  }
  const name = random.pick(Object.keys(jsonFiles) as (keyof typeof jsonFiles)[]);
  const isListed = name === "tokenizer_config.json" && random.once(2);
  const json = isListed ? withDecoder : jsonFiles[name];
  const folder = name === "vocab.json" || random.once(2) ? "older" : "newer";
  return { folder, name, text: mutateJson(random, json, keys) };
}
