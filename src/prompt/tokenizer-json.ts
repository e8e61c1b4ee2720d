/**
 * tokenizer.json, the one file that transformers 5 saves in place of vocab.json and merges.txt. Its
 * pipeline must be CLIP's, which is built in (tokenizer.ts): another one is refused by name.
 *
 * Source: transformers models/clip/tokenization_clip.py; the format is the tokenizers library's.
 */
import * as v from "valibot";
import { ConfigReader, flag, show, text } from "../models/config-reader.ts";
import { readJsonFile } from "../models/json.ts";

interface TokenizerJson {
  vocab: unknown;
  merges: [string, string][];
  /** Entries as they stand. */
  addedTokens: unknown[];
}

/** Reads and checks the file at `path`. Throws "bad-model" naming what is not CLIP's. */
export async function readTokenizerJson(path: string): Promise<TokenizerJson> {
  const reader = new ConfigReader(path, await readJsonFile(path));
  const model = new ConfigReader(`${path}: model`, reader.required("model", anObject));
  checkModel(model);
  const isClip: Record<string, (section: unknown) => boolean> = {
    normalizer: (section) => matches(normalizer, section),
    pre_tokenizer: (section) => matches(preTokenizer, section),
    post_processor: (section) => section === null || matches(postProcessor, section),
  };
  for (const [key, check] of Object.entries(isClip)) {
    const section = reader.optional(key, v.unknown(), null);
    if (check(section)) continue;
    reader.fail(
      `${key} is ${show(section)}, which is not CLIP's; only CLIP's tokenizer is supported`,
    );
  }
  for (const key of ["truncation", "padding"]) {
    const section = reader.optional(key, side, null);
    const direction = section?.direction ?? "Right";
    if (direction === "Right") continue;
    reader.fail(`${key} has the direction ${show(direction)}, which is not supported; "Right" is`);
  }
  const merges = model.required("merges", v.array(merge, "it must be a list of merges"));
  if (merges.length === 0) reader.fail("model has no merges");
  return {
    vocab: model.required("vocab", v.unknown()),
    merges: merges.map((each) => (typeof each === "string" ? pairOf(reader, each) : each)),
    addedTokens:
      reader.optional("added_tokens", v.array(v.unknown(), "it must be a list"), null) ?? [],
  };
}

// --- internal ---

const anObject = v.record(v.string(), v.unknown(), "it must be an object");
const side = v.object({ direction: v.optional(text) }, "it must be null or an object");
const token = v.pipe(v.string(), v.minLength(1));
const merge = v.union([v.string(), v.tuple([token, token])], "it must be two tokens");

/** Words of the model section with what CLIP has; null is always fine. */
const modelValues: Record<string, readonly unknown[]> = {
  type: ["BPE"],
  dropout: [0],
  continuing_subword_prefix: [""],
  fuse_unk: [false],
  byte_fallback: [false],
  ignore_merges: [false],
};

function checkModel(model: ConfigReader): void {
  for (const [key, values] of Object.entries(modelValues)) model.refuseUnless(key, values);
  const suffix = model.optional("end_of_word_suffix", text, null);
  if (suffix === "</w>") return;
  model.fail(`end_of_word_suffix is ${show(suffix)}, but CLIP's is "</w>"`);
}

function pairOf(reader: ConfigReader, merged: string): [string, string] {
  const [left, right, ...more] = merged.split(" ");
  if (left && right && more.length === 0) return [left, right];
  return reader.fail(`the merge ${show(merged)} is not two tokens with one space between them`);
}

function matches(schema: v.GenericSchema, section: unknown): boolean {
  return v.safeParse(schema, section).success;
}

const normalizer = v.object({
  type: v.literal("Sequence"),
  normalizers: v.strictTuple([
    v.object({ type: v.literal("NFC") }),
    v.object({
      type: v.literal("Replace"),
      pattern: v.object({ Regex: v.literal("\\s+") }),
      content: v.literal(" "),
    }),
    v.object({ type: v.literal("Lowercase") }),
  ]),
});

/**
 * transformers 4 wrote the pattern without the two special tokens. They never reach it: they are
 * cut out of the text before.
 */
const specialWords = "<\\|startoftext\\|>|<\\|endoftext\\|>|";
const words = "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";

const preTokenizer = v.object({
  type: v.literal("Sequence"),
  pretokenizers: v.strictTuple([
    v.object({
      type: v.literal("Split"),
      pattern: v.object({ Regex: v.picklist([words, specialWords + words]) }),
      behavior: v.literal("Removed"),
      invert: v.literal(true),
    }),
    v.object({
      type: v.literal("ByteLevel"),
      add_prefix_space: v.literal(false),
      use_regex: v.optional(flag),
    }),
  ]),
});

/** BOS before the text and EOS after it; transformers' CLIPTokenizer sets both in any case. */
const postProcessor = v.union([
  v.object({ type: v.literal("RobertaProcessing") }),
  v.object({
    type: v.literal("TemplateProcessing"),
    single: v.strictTuple([
      v.object({ SpecialToken: anObject }),
      v.object({ Sequence: anObject }),
      v.object({ SpecialToken: anObject }),
    ]),
  }),
]);
