/**
 * CLIP's byte-pair tokenizer from a model folder: text to 77 token ids, equal to transformers'
 * CLIPTokenizer. Ids go to the model as they are, so the padding is part of them.
 */
import { Tokenizer as BpeTokenizer, SequenceNormalizer } from "@huggingface/tokenizers";
import { type AddedToken, addedTokenSplitter, type Section } from "./added-tokens.ts";
import { readSpecialTokens } from "./special-tokens.ts";
import { readVocabulary, type Vocabulary } from "./vocabulary.ts";

/** Tokens of one prompt, with the marks for its beginning and end: 75 for the text. */
export const promptTokenCount = 77;

/** A word whose ids are known: those of an embedding that stands for it. */
export interface WordIds {
  word: string;
  ids: readonly number[];
}

/** A prompt in parts: text, and words with ids beyond the vocabulary. */
export type PromptPart = string | WordIds;

interface TokenizedPrompt {
  /** (77): BOS, text, EOS, padding. */
  ids: Int32Array;
  /** The text that did not fit, as the tokenizer reads it; "" if none. */
  truncated: string;
  /** Index of the token whose hidden state is the pooled output. */
  endIndex: number;
}

export interface Tokenizer {
  encode(prompt: string | readonly PromptPart[]): TokenizedPrompt;
  /**
   * All ids of a part, without marks. `asTools`: as A1111 and ComfyUI tokenize, whose second
   * tokenizer pads with the id of "!" but reads a "!" of the text as a word.
   */
  idsOf(part: PromptPart, options: { asTools: boolean }): number[];
  /** Index of the token whose state is pooled, in one chunk; `words`: ids beyond the vocabulary. */
  endIndexOf(ids: Int32Array, words: ReadonlySet<number>): number;
  readonly marks: {
    bos: number;
    eos: number;
    pad: number;
    /** That of a comma; null where the vocabulary has none. */
    comma: number | null;
  };
  /** One more than the largest id there is. */
  readonly idLimit: number;
  /** The token with the largest id. */
  readonly lastToken: string;
}

/**
 * Loads the tokenizer in `folder`, or its special tokens alone where the vocabulary is `given`.
 * `eosTokenId` is that of the config of the text encoder. Throws "bad-model" with the file, and the
 * line or key, that is missing or wrong.
 */
export async function loadTokenizer(
  folder: string,
  eosTokenId: number,
  given: Vocabulary | null = null,
): Promise<Tokenizer> {
  const vocabulary = given ?? (await readVocabulary(folder));
  const { bos, eos, unk, pad, added } = await readSpecialTokens(folder, vocabulary);
  const library = new BpeTokenizer(tokenizerJson(vocabulary, unk.content), {});
  const isMark = ({ id }: AddedToken) => [bos.id, eos.id, unk.id].includes(id);
  const splitAsTools = addedTokenSplitter(
    added.filter((token) => token.id !== pad.id || isMark(token)),
    normalize,
  );
  const encodeText = (given: string, split: (text: string) => Section[]) =>
    split(withAllVectors(given, split(given), added)).flatMap((section) =>
      typeof section === "string"
        ? library.encode(section, { add_special_tokens: false }).ids
        : section.id,
    );
  const split = addedTokenSplitter(added, normalize);
  const idsOf = (part: PromptPart, { asTools }: { asTools: boolean }) =>
    typeof part === "string" ? encodeText(part, asTools ? splitAsTools : split) : [...part.ids];
  const all = [...vocabulary.ids, ...added.map(({ content, id }) => [content, id] as const)];
  const [lastToken, lastId] = all.reduce((last, each) => (each[1] > last[1] ? each : last));
  const textCount = promptTokenCount - 2;
  return {
    idLimit: lastId + 1,
    lastToken,
    idsOf,
    endIndexOf: (ids, words) => endIndexOf(ids, eosTokenId, words),
    marks: { bos: bos.id, eos: eos.id, pad: pad.id, comma: vocabulary.ids.get(",</w>") ?? null },
    encode(prompt) {
      const parts = typeof prompt === "string" ? [prompt] : prompt;
      const words = wordsById(parts);
      const textIds = parts.flatMap((part) => idsOf(part, { asTools: false }));
      const rest = textIds.slice(textCount);
      const padded = new Int32Array(promptTokenCount).fill(pad.id);
      padded.set([bos.id, ...textIds.slice(0, textCount), eos.id]);
      const contents = new Map(added.map(({ id, content }) => [id, content]));
      const truncated = decode(rest, { words, contents }, (ids) => library.decode(ids));
      return { ids: padded, truncated, endIndex: endIndexOf(padded, eosTokenId, words) };
    },
  };
}

// --- internal ---

/**
 * A concept trained as several tokens is written as its first one: "<x>" stands for "<x> <x>_1
 * <x>_2", as in diffusers' `maybe_convert_prompt`.
 */
function withAllVectors(text: string, sections: Section[], added: readonly AddedToken[]): string {
  const contents = new Set(added.map(({ content }) => content));
  const used = sections.flatMap((section) => (typeof section === "string" ? [] : section.content));
  let result = text;
  for (const token of new Set(used)) {
    const vectors = [token];
    while (contents.has(`${token}_${vectors.length}`)) vectors.push(`${token}_${vectors.length}`);
    if (vectors.length > 1) result = result.replaceAll(token, () => vectors.join(" "));
  }
  return result;
}

function wordsById(parts: readonly PromptPart[]): Map<number, string> {
  return new Map(
    parts.flatMap((part) =>
      typeof part === "string" ? [] : part.ids.map((id) => [id, part.word] as const),
    ),
  );
}

/** Ids as text; the library knows the vocabulary only. A word of several ids is shown once. */
function decode(
  ids: number[],
  { words, contents }: { words: Map<number, string>; contents: Map<number, string> },
  decodeText: (ids: number[]) => string,
): string {
  const parts: string[] = [];
  let run: number[] = [];
  for (const [index, id] of [...ids, null].entries()) {
    const word = id === null ? undefined : words.get(id);
    const content = id === null ? "" : (word ?? contents.get(id));
    if (id !== null && content === undefined) run.push(id);
    else {
      if (run.length > 0) parts.push(decodeText(run).trim());
      const isRest = word !== undefined && words.get(ids[index - 1] ?? -1) === word;
      if (content && !isRest) parts.push(content);
      run = [];
    }
  }
  return parts.join(" ");
}

const normalizer = new SequenceNormalizer({
  type: "Sequence",
  normalizers: [
    { type: "NFC" },
    { type: "Replace", pattern: { Regex: "\\s+" }, content: " " },
    { type: "Lowercase" },
  ],
});

function normalize(text: string): string {
  return normalizer.normalize(lowerSigma(text));
}

/**
 * The tokenizer.json that transformers builds for CLIP (models/clip/tokenization_clip.py), without
 * what is done here: the normalizer and added tokens. The second split is ByteLevel's own, written
 * out because the library's uses JavaScript's idea of white space.
 */
function tokenizerJson({ ids, merges }: Vocabulary, unknown: string) {
  const contractions = "'s|'t|'re|'ve|'m|'ll|'d";
  const others = "[^\\s\\p{L}\\p{N}]+";
  const split = (regex: string) => ({
    type: "Split",
    pattern: { Regex: regex },
    behavior: "Removed",
    invert: true,
  });
  return {
    version: "1.0",
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        split(`<\\|startoftext\\|>|<\\|endoftext\\|>|${contractions}|[\\p{L}]+|[\\p{N}]|${others}`),
        split(`${contractions}|[\\p{L}]+|[\\p{N}]+|${others}`),
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      unk_token: unknown,
      end_of_word_suffix: "</w>",
      fuse_unk: false,
      vocab: Object.fromEntries(ids),
      merges,
    },
  };
}

/** JavaScript lower-cases a sigma by its place in the word; the reference goes letter by letter. */
function lowerSigma(text: string): string {
  return text.replaceAll("\u03a3", "\u03c3");
}

/**
 * Where transformers' CLIPTextModel pools: the first EOS; but the largest id where the config has
 * the wrong EOS id 2 of older files, `words` aside. Index 0 when nothing matches, as argmax of
 * zeros.
 */
function endIndexOf(
  ids: Int32Array,
  eosTokenId: number,
  words: { has(id: number): boolean },
): number {
  const largest = () => Math.max(...ids.filter((id) => !words.has(id)));
  return Math.max(ids.indexOf(eosTokenId === 2 ? largest() : eosTokenId), 0);
}
