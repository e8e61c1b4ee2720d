/**
 * Prompts as the text encoders read them: weights, chunks and token ids, each distinct text once,
 * with warnings about what is left out.
 */
import type { EmbeddingTable } from "../embeddings.ts";
import { BasedXLError, escaped } from "../errors.ts";
import type { Model } from "../models/model.ts";
import { chunkCountMax } from "../native/abi.ts";
import type { TokenPair } from "../native/handle.ts";
import { isBreak } from "../prompt/a1111.ts";
import { chunksOf, type PromptChunks, type WeightedPart, withChunks } from "../prompt/chunks.ts";
import { piecesOf, weightsIn } from "../prompt/pieces.ts";
import { promptTokenCount, type Tokenizer } from "../prompt/tokenizer.ts";
import type { Emphasis, EmptyNegative, PromptSyntax } from "../settings/names.ts";
import { asProperty, type Naming } from "../settings/values.ts";

/** The request's settings of these names. */
export interface PromptRules {
  promptSyntax: PromptSyntax;
  emphasis?: Emphasis;
  longPrompts: boolean;
  clipSkip: number;
  emptyNegative: EmptyNegative;
}

export const defaultRules: PromptRules = {
  promptSyntax: "plain",
  longPrompts: false,
  clipSkip: 2,
  emptyNegative: "auto",
};

/** For a model without a first text encoder. */
const noIds = new Int32Array();

type Tokenizers = Pick<Model, "tokenizer" | "tokenizer2" | "forceZerosForEmptyPrompt">;

interface EncoderOptions {
  /** Those of the prompts' request; absent for none. */
  embeddings?: EmbeddingTable | undefined;
  rules?: PromptRules | undefined;
  /** How messages name a setting. */
  naming?: Naming | undefined;
}

export class PromptEncoder {
  private readonly known = new Map<string, TokenPair>();
  private readonly embeddings: EmbeddingTable | undefined;
  private readonly rules: PromptRules;
  private readonly naming: Naming;

  constructor(
    private readonly model: Tokenizers,
    private readonly warn: (sentence: string) => void,
    { embeddings, rules = defaultRules, naming = asProperty }: EncoderOptions = {},
  ) {
    this.embeddings = embeddings;
    this.rules = rules;
    this.naming = naming;
  }

  /** `second` is for the second encoder, where it is not the same. */
  prompt(first: string, second?: string): TokenPair {
    return this.encode([first, second || first], "prompt", this.layersSkipped(false));
  }

  /**
   * null = zeros. Without a negative prompt (null) SDXL's configs ask for zeros instead of the
   * embedding of "" (`force_zeros_for_empty_prompt`); an explicit "" is encoded, as diffusers does.
   */
  negative(first: string | null, second?: string): TokenPair | null {
    const { emptyNegative } = this.rules;
    const isZeros = {
      auto: first === null && this.model.forceZerosForEmptyPrompt,
      zeros: first === null || first === "",
      encode: false,
    };
    if (isZeros[emptyNegative]) return null;
    const texts: [string, string] = [first ?? "", second || (first ?? "")];
    return this.encode(texts, "negative prompt", this.layersSkipped(true));
  }

  /** The empty prompt, from which ComfyUI's weights interpolate. */
  empty(): TokenPair {
    return this.encode(["", ""], "prompt", this.layersSkipped(false));
  }

  /** The same prompts, filled with empty chunks until all have as many. */
  alike<Tokens extends TokenPair | null>(prompts: readonly Tokens[]): Tokens[] {
    const length = Math.max(...prompts.map((pair) => pair?.ids2.length ?? 0));
    return prompts.map((pair) =>
      pair === null ? pair : { ...pair, ...this.filled(pair, length) },
    );
  }

  // --- internal ---

  private filled(pair: TokenPair, length: number): TokenPair {
    const empty = this.empty();
    const count = (length - pair.ids2.length) / empty.ids2.length;
    if (count === 0) return pair;
    const ids = (own: Int32Array, more: Int32Array) =>
      new Int32Array([
        ...own,
        ...Array(count)
          .fill([...more])
          .flat(),
      ]);
    const weights = (own: Float32Array | undefined) =>
      own && new Float32Array([...own, ...Array(length - own.length).fill(1)]);
    return {
      ...pair,
      ids: ids(pair.ids, empty.ids),
      ids2: ids(pair.ids2, empty.ids2),
      weights: weights(pair.weights),
      weights2: weights(pair.weights2),
    };
  }

  /**
   * Layers beyond the one that SDXL leaves out. diffusers' pipeline has its clip_skip for the
   * prompt alone; A1111 ignores its setting for SDXL.
   */
  private layersSkipped(isNegative: boolean): number {
    const { promptSyntax, clipSkip } = this.rules;
    const isIgnored = promptSyntax === "a1111" || (promptSyntax === "plain" && isNegative);
    return isIgnored ? 0 : Math.max(0, clipSkip - 2);
  }

  private encode(texts: [string, string], what: string, clipSkip: number): TokenPair {
    const key = JSON.stringify([clipSkip, ...texts]);
    const known = this.known.get(key);
    if (known) return known;
    const { promptSyntax, longPrompts } = this.rules;
    const isPlain = promptSyntax === "plain";
    if (isPlain) this.warnOfWeights(texts, what);
    const tokens = isPlain && !longPrompts ? this.cut(texts, what) : this.inChunks(texts, what);
    const pair = { ...tokens, ...(clipSkip > 0 && { clipSkip }) };
    this.known.set(key, pair);
    return pair;
  }

  private warnOfWeights(texts: readonly string[], what: string): void {
    const found = texts.map(weightsIn).find((each) => each !== null);
    if (found === undefined) return;
    this.warn(
      `The ${what} has "${escaped(found ?? "", 60)}", which is read as text: \
${this.naming("promptSyntax")} a1111 or comfyui reads weights.`,
    );
  }

  /** One chunk; what does not fit is left out. */
  private cut([text, text2]: [string, string], what: string): TokenPair {
    const first = this.model.tokenizer?.encode(this.partsOf(text)[0]);
    const second = this.model.tokenizer2.encode(this.partsOf(text2)[1]);
    // The two tokenizers may truncate at different places: report the longer rest.
    const cuts = [first?.truncated ?? "", second.truncated];
    const dropped = cuts.reduce((longest, cut) => (cut.length > longest.length ? cut : longest));
    if (dropped !== "") {
      const shown =
        dropped.length > 200 ? `${dropped.slice(0, 120)} ... ${dropped.slice(-60)}` : dropped;
      this.warn(
        `The ${what} is longer than ${second.ids.length} tokens; left out: "${escaped(shown)}".`,
      );
    }
    return { ids: first?.ids ?? noIds, ids2: second.ids, endIndex2: second.endIndex };
  }

  /** As many chunks as it takes, the same number for both encoders. */
  private inChunks([text, text2]: [string, string], what: string): TokenPair {
    const { tokenizer, tokenizer2 } = this.model;
    const first = tokenizer && this.chunks(tokenizer, text, 0, what);
    const second = this.chunks(tokenizer2, text2, 1, what);
    const counts = [first ?? second, second].map(({ ids }) => ids.length / promptTokenCount);
    const count = Math.max(...counts);
    if (count > chunkCountMax) {
      throw new BasedXLError(
        "bad-option",
        `The ${what} has ${count} chunks of 75 tokens: ${chunkCountMax} are possible.`,
      );
    }
    const filled = first && withChunks(tokenizer!, first, count);
    const filled2 = withChunks(tokenizer2, second, count);
    return {
      ids: filled?.ids ?? noIds,
      ids2: filled2.ids,
      endIndex2: filled2.endIndex,
      ...(filled && isWeighed(filled) && { weights: filled.weights }),
      ...(isWeighed(filled2) && { weights2: filled2.weights }),
    };
  }

  private chunks(tokenizer: Tokenizer, text: string, which: 0 | 1, what: string): PromptChunks {
    const { promptSyntax, emphasis } = this.rules;
    const isRead = promptSyntax !== "a1111" || emphasis !== "none";
    const pieces = isRead ? piecesOf(text, promptSyntax) : [{ text, weight: 1 }];
    const isWeighed = promptSyntax !== "a1111" || emphasis !== "ignore";
    const parts = pieces.flatMap((piece): WeightedPart[] => {
      if (promptSyntax === "a1111" && isBreak(piece)) return ["break"];
      const weight = isWeighed ? piece.weight : 1;
      if (!Number.isFinite(Math.fround(weight))) {
        const shown = escaped(piece.text, 60);
        throw new BasedXLError(
          "bad-option",
          `The ${what} has "${shown}" with a weight of ${weight}.`,
        );
      }
      return this.partsOf(piece.text)[which].map((part) => ({ part, weight }));
    });
    return chunksOf(tokenizer, parts, promptSyntax);
  }

  private partsOf(text: string) {
    return this.embeddings?.parts(text) ?? ([[text], [text]] as const);
  }
}

// --- internal ---

function isWeighed({ weights }: PromptChunks): boolean {
  return weights.some((weight) => weight !== 1);
}
