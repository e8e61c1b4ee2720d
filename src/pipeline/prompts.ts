/**
 * Tokenizes prompts, each distinct text once, and warns about truncated ones.
 */
import type { EmbeddingTable } from "../embeddings.ts";
import { escaped } from "../errors.ts";
import type { Model } from "../models/model.ts";
import type { TokenPair } from "../native/handle.ts";

/** For a model without a first text encoder. */
const noIds = new Int32Array();

type Tokenizers = Pick<Model, "tokenizer" | "tokenizer2" | "forceZerosForEmptyPrompt">;

export class PromptEncoder {
  private readonly known = new Map<string, TokenPair>();

  constructor(
    private readonly model: Tokenizers,
    private readonly warn: (sentence: string) => void,
    /** That of the prompts' request; absent for none. */
    private readonly embeddings?: EmbeddingTable,
  ) {}

  prompt(prompt: string): TokenPair {
    return this.encode(prompt, "prompt");
  }

  /**
   * null = zeros. Without a negative prompt (null) SDXL's configs ask for zeros instead of the
   * embedding of "" (`force_zeros_for_empty_prompt`); an explicit "" is encoded, as diffusers does.
   */
  negative(negativePrompt: string | null): TokenPair | null {
    if (negativePrompt === null && this.model.forceZerosForEmptyPrompt) return null;
    return this.encode(negativePrompt ?? "", "negative prompt");
  }

  // --- internal ---

  private encode(text: string, what: string): TokenPair {
    const known = this.known.get(text);
    if (known) return known;
    const [parts, parts2] = this.embeddings?.parts(text) ?? [text, text];
    const first = this.model.tokenizer?.encode(parts);
    const second = this.model.tokenizer2.encode(parts2);
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
    const tokens = { ids: first?.ids ?? noIds, ids2: second.ids, endIndex2: second.endIndex };
    this.known.set(text, tokens);
    return tokens;
  }
}
