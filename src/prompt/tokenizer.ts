/**
 * CLIP's byte-pair tokenizer from a model folder's vocab.json and merges.txt alone: text to 77
 * token ids, equal to transformers' CLIPTokenizer. Ids go to the model as they are, so the padding
 * is part of them.
 */
import { Tokenizer as BpeTokenizer } from "@huggingface/tokenizers";
import { type AddedToken, readSpecialTokens } from "./special-tokens.ts";
import { readMerges, readVocabulary } from "./vocabulary.ts";

/** Tokens of one prompt, with the marks for its beginning and end: 75 for the text. */
export const promptTokenCount = 77;

export interface TokenizedPrompt {
  /** (77): BOS, text, EOS, padding. */
  ids: Int32Array;
  /** The text that did not fit, as the tokenizer reads it; "" if none. */
  truncated: string;
  /** Index of the token whose hidden state is the pooled output. */
  endIndex: number;
}

export interface Tokenizer {
  encode(text: string): TokenizedPrompt;
  /** One more than the largest id there is. */
  readonly idLimit: number;
}

/**
 * Loads the tokenizer in `folder`. `eosTokenId` is what the config of the text encoder says. Throws
 * "bad-model" with the file, and the line or key, that is missing or wrong.
 */
export async function loadTokenizer(folder: string, eosTokenId: number): Promise<Tokenizer> {
  const vocabulary = await readVocabulary(folder);
  const merges = await readMerges(folder, vocabulary);
  const special = await readSpecialTokens(folder, vocabulary);
  const { bos, eos, pad } = special;
  const ids = [...vocabulary.values(), ...special.added.map((token) => token.id)];
  const idLimit = ids.reduce((limit, id) => Math.max(limit, id + 1), 0);
  const library = new BpeTokenizer(
    tokenizerJson({ vocabulary, merges, unknown: special.unk.content, added: special.added }),
    {},
  );
  const textCount = promptTokenCount - 2;
  return {
    idLimit,
    encode(text) {
      const textIds = library.encode(lowerSigma(text), { add_special_tokens: false }).ids;
      const rest = textIds.slice(textCount);
      const padded = new Int32Array(promptTokenCount).fill(pad.id);
      padded.set([bos.id, ...textIds.slice(0, textCount), eos.id]);
      const truncated = rest.length > 0 ? library.decode(rest).trim() : "";
      return { ids: padded, truncated, endIndex: endIndexOf(padded, eosTokenId) };
    },
  };
}

// --- internal ---

interface TokenizerParts {
  vocabulary: Map<string, number>;
  merges: [string, string][];
  unknown: string;
  added: AddedToken[];
}

/**
 * The tokenizer.json that transformers builds for CLIP (models/clip/tokenization_clip.py). The
 * second split is ByteLevel's own, written out because the library's uses JavaScript's idea of
 * white space.
 */
function tokenizerJson({ vocabulary, merges, unknown, added }: TokenizerParts) {
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
    added_tokens: added,
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
      vocab: Object.fromEntries(vocabulary),
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
 * the wrong EOS id 2 of older files. Index 0 when nothing matches, as argmax of zeros.
 */
function endIndexOf(ids: Int32Array, eosTokenId: number): number {
  const wanted = eosTokenId === 2 ? ids.reduce((a, b) => Math.max(a, b)) : eosTokenId;
  return Math.max(ids.indexOf(wanted), 0);
}
