/**
 * Where a tokenizer's tokens come from, equal to transformers (tests/fixtures, made by
 * tests/reference/make_added_tokens.py): tokenizer.json alone or beside older files, added tokens
 * from four places with all their flags; and what is refused by name.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { loadTokenizer } from "../../src/prompt/tokenizer.ts";
import reference from "../fixtures/tokens-added.json";
import { golden, linkedModel } from "../support/linked-model.ts";
import { refusal } from "../support/refusal.ts";

const source = join(golden, "tokenizer");
const vocab = JSON.parse(readFileSync(join(source, "vocab.json"), "utf8"));
const merges = readFileSync(join(source, "merges.txt"), "utf8")
  .split("\n")
  .filter((line) => line !== "" && !line.startsWith("#version"));
const bos = 820;
const eos = 821;

const root = mkdtempSync(join(tmpdir(), "basedxl-added-"));
// Removing some hundred files takes seconds on a busy disk.
setDefaultTimeout(60_000);
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** The saved tokenizer.json with golden's vocabulary; `changes` replaces sections. */
function tokenizerJson(changes: Record<string, unknown>, model: Record<string, unknown> = {}) {
  const { merges: form, ...sections } = changes;
  const pairs = form === "text" ? merges : merges.map((line) => line.split(" "));
  const whole = { ...reference.template.model, vocab, merges: pairs, ...model };
  return { ...reference.template, model: whole, ...sections };
}

interface Files {
  /** vocab.json and merges.txt too. */
  old?: boolean;
  [name: string]: unknown;
}

function folderWith({ old, ...files }: Files): string {
  const folder = mkdtempSync(join(root, "tokenizer-"));
  for (const name of old ? ["vocab.json", "merges.txt"] : []) {
    copyFileSync(join(source, name), join(folder, name));
  }
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(join(folder, name), JSON.stringify(content));
  }
  return folder;
}

const load = (files: Files) => loadTokenizer(folderWith(files), eos);

describe("ids equal transformers'", () => {
  for (const [name, { files, pad, size, ids }] of Object.entries(reference.folders)) {
    test(name, async () => {
      const all: Files = { ...files };
      const changes = all["tokenizer.json"];
      if (changes) all["tokenizer.json"] = tokenizerJson(changes as Record<string, unknown>);
      const tokenizer = await load(all);
      expect(tokenizer.idLimit).toBe(size);
      reference.texts.forEach((text, index) => {
        const wanted = ids[index]!;
        const padded = [...wanted, ...new Array<number>(77 - wanted.length).fill(pad)];
        expect([...tokenizer.encode(text).ids], JSON.stringify(text)).toEqual(padded);
      });
    });
  }
});

describe("a concept of several vectors", () => {
  test("is written as its first one, as diffusers reads it", async () => {
    const tokenizer = await load({
      old: true,
      "added_tokens.json": { "<toy>": 822, "<toy>_1": 823, "<toy>_2": 824, "<one>": 825 },
    });
    const ids = (text: string) => {
      const all = [...tokenizer.encode(text).ids];
      return all.slice(0, all.indexOf(eos));
    };
    expect(ids("a <toy>, <one>")).toEqual([bos, 320, 822, 823, 824, 267, 825]);
    expect(ids("<toy>_1")).toEqual([bos, 823]);
    expect(ids("a<toy><toy>")).toEqual([bos, 320, 822, 823, 824, 822, 823, 824]);
  });
});

describe("warnings about added tokens", () => {
  test("tokens with names of the model's own are added, as in transformers 5", async () => {
    const names = { extra_special_tokens: ["<b>"], model_specific_special_tokens: { toy: "<a>" } };
    const tokenizer = await load({ old: true, "tokenizer_config.json": names });
    expect([...tokenizer.encode("<a><b>").ids].slice(0, 4)).toEqual([bos, 822, 823, eos]);
  });

  test("the truncated text holds them", async () => {
    const tokenizer = await load({ old: true, "added_tokens.json": { "<toy>": 822 } });
    const { truncated } = tokenizer.encode(`${"cat ".repeat(75)}a red <toy> Circle`);
    expect(truncated).toBe("a red <toy> circle");
  });

  test("an id past the text encoder's rows is refused by name", async () => {
    for (const [file, content] of [
      ["added_tokens.json", { "<toy>": 822 }],
      ["tokenizer_config.json", { added_tokens_decoder: { 822: { content: "<toy>" } } }],
      ["special_tokens_map.json", { additional_special_tokens: ["<toy>"] }],
    ] as const) {
      const folder = linkedModel(root);
      writeFileSync(join(folder, "tokenizer_2", file), JSON.stringify(content));
      const message = await refusal(() => openModelFolder(folder), "bad-model");
      expect(message).toMatch(
        /tokenizer_2 has token ids up to \d+, that of "<toy>", .* 822 tokens/,
      );
    }
  });
});

describe("tokenizer.json that is not CLIP's", () => {
  const words = "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";
  const byteLevel = reference.template.pre_tokenizer.pretokenizers[1];
  const pre = (regex: string, second: unknown = byteLevel, more: object = {}) => ({
    type: "Sequence",
    pretokenizers: [
      { type: "Split", pattern: { Regex: regex }, behavior: "Removed", invert: true, ...more },
      second,
    ],
  });

  test("what transformers 4 saved is read too", async () => {
    const model = { type: undefined, byte_fallback: undefined, ignore_merges: undefined };
    const json = tokenizerJson({ pre_tokenizer: pre(words), merges: "text" }, model);
    const tokenizer = await load({ "tokenizer.json": json });
    const now = await load({ "tokenizer.json": tokenizerJson({}) });
    const text = "A Photo, it's <|endoftext|> 42!";
    expect(tokenizer.encode(text)).toEqual(now.encode(text));
    const template = {
      type: "TemplateProcessing",
      single: [
        { SpecialToken: { id: "<|startoftext|>", type_id: 0 } },
        { Sequence: { id: "A", type_id: 0 } },
        { SpecialToken: { id: "<|endoftext|>", type_id: 0 } },
      ],
    };
    for (const post_processor of [null, template]) {
      const other = await load({ "tokenizer.json": tokenizerJson({ post_processor }) });
      expect(other.encode(text)).toEqual(now.encode(text));
    }
  });

  const [nfc, replace] = reference.template.normalizer.normalizers;
  const left = { direction: "Left", max_length: 77, strategy: "LongestFirst", stride: 0 };
  const refused: [string, Record<string, unknown>, RegExp][] = [
    ["no normalizer", { normalizer: null }, /normalizer is null, which is not CLIP's/],
    ["BERT's normalizer", { normalizer: { type: "BertNormalizer" } }, /normalizer is .*BertNorm/],
    [
      "no lower case",
      { normalizer: { type: "Sequence", normalizers: [nfc, replace] } },
      /normalizer is .*not CLIP's/,
    ],
    ["no pre-tokenizer", { pre_tokenizer: null }, /pre_tokenizer is null/],
    ["ByteLevel alone", { pre_tokenizer: byteLevel }, /pre_tokenizer is .*ByteLevel/],
    ["numbers whole", { pre_tokenizer: pre(words.replace("[\\p{N}]", "[\\p{N}]+")) }, /pre_token/],
    ["split kept", { pre_tokenizer: pre(words, byteLevel, { behavior: "Isolated" }) }, /pre_token/],
    [
      "a space in front",
      { pre_tokenizer: pre(words, { type: "ByteLevel", add_prefix_space: true }) },
      /pre_token/,
    ],
    ["BERT's ends", { post_processor: { type: "BertProcessing" } }, /post_processor is .*Bert/],
    ["cut from the left", { truncation: left }, /truncation has the direction "Left"/],
    ["filled from the left", { padding: left }, /padding has the direction "Left"/],
    ["tokens without ids", { added_tokens: [{ content: "<x>" }] }, /added_tokens is/],
  ];
  for (const [what, changes, sentence] of refused) {
    test(`${what} is refused by name`, async () => {
      const json = tokenizerJson(changes);
      const message = await refusal(() => load({ "tokenizer.json": json }), "bad-model");
      expect(message).toMatch(sentence);
      expect(message).toMatch(/tokenizer\.json/);
    });
  }

  const models: [Record<string, unknown>, RegExp][] = [
    [{ type: "WordPiece" }, /model: type is "WordPiece"/],
    [{ type: "Unigram", vocab: [["a", 0]] }, /model: type is "Unigram"/],
    [{ dropout: 0.1 }, /dropout is 0\.1/],
    [{ end_of_word_suffix: "" }, /end_of_word_suffix is "", but CLIP's/],
    [{ continuing_subword_prefix: "##" }, /continuing_subword_prefix is "##"/],
    [{ byte_fallback: true }, /byte_fallback is true/],
    [{ ignore_merges: true }, /ignore_merges is true/],
    [{ merges: [] }, /model has no merges/],
    [{ merges: ["a b c"] }, /the merge "a b c" is not two tokens/],
    [{ merges: [["q", "q"]] }, /merge 1: the token "qq" is not in the vocabulary/],
    [{ merges: [["a"]] }, /merges is .*two tokens/],
    [{ vocab: {} }, /has no tokens/],
    [{ vocab: { a: "0" } }, /the token "a" has the id "0"/],
    [{ vocab: undefined }, /vocab is missing/],
  ];
  for (const [model, sentence] of models) {
    test(`a model with ${JSON.stringify(model)}`, async () => {
      const json = tokenizerJson({}, model);
      const message = await refusal(() => load({ "tokenizer.json": json }), "bad-model");
      expect(message).toMatch(sentence);
    });
  }
});

describe("tokens that contradict each other", () => {
  for (const [files, sentence] of [
    [{ "added_tokens.json": { "<x>": 5 } }, /added token "<x>" has the id 5 of "&"/],
    [{ "added_tokens.json": { "cat</w>": 900 } }, /"cat<\/w>" has the id 900, but also the id 652/],
    [{ "added_tokens.json": { a: 822, b: 822 } }, /the tokens "a" and "b" have the same id 822/],
    [
      { "added_tokens.json": { "<x>": 824 } },
      /token "<x>" has the id 824, but the next one .* is 822/,
    ],
    [
      { "tokenizer_config.json": { added_tokens_decoder: { 822: "<x>", 824: "<y>" } } },
      /token "<y>" has the id 824, but the next one .* is 823/,
    ],
    [{ "added_tokens.json": { a: "822" } }, /a is "822", but it must be a token id/],
    [{ "added_tokens.json": ["a"] }, /added_tokens\.json must hold a JSON object/],
    [{ "tokenizer_config.json": { padding_side: "left" } }, /padding_side is "left"/],
    [{ "tokenizer_config.json": { truncation_side: "left" } }, /truncation_side is "left"/],
    [{ "tokenizer_config.json": { split_special_tokens: true } }, /split_special_tokens is true/],
  ] as const) {
    test(`${JSON.stringify(files)} is refused`, async () => {
      const message = await refusal(() => load({ old: true, ...files }), "bad-model");
      expect(message).toMatch(sentence);
    });
  }
});
