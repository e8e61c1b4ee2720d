/**
 * Prompts of any length in chunks of 75 tokens, each with its own marks for beginning and end, cut
 * where the tools cut: A1111 at the last comma of the chunk's last 20 tokens, ComfyUI around pieces
 * of fewer than 8 tokens.
 * Sources: AUTOMATIC1111 modules/sd_hijack_clip.py, `tokenize_line`; ComfyUI comfy/sd1_clip.py,
 * `tokenize_with_weights`.
 */
import type { PromptSyntax } from "../settings/names.ts";
import { type PromptPart, promptTokenCount, type Tokenizer } from "./tokenizer.ts";

/** A part of a prompt with its weight, or the mark for a new chunk. */
export type WeightedPart = { part: PromptPart; weight: number } | "break";

/** What an encoder reads: one id and one weight per position of each chunk. */
export interface PromptChunks {
  ids: Int32Array;
  weights: Float32Array;
  /** Index of the token whose hidden state is the pooled output: in the first chunk. */
  endIndex: number;
}

/** The prompt for one encoder, in one chunk or more. */
export function chunksOf(
  tokenizer: Tokenizer,
  parts: readonly WeightedPart[],
  syntax: PromptSyntax,
): PromptChunks {
  const filler = new ChunkFiller(tokenizer.marks.comma);
  for (const each of parts) {
    if (each === "break") filler.next();
    else {
      const isText = typeof each.part === "string";
      const ids = tokenizer.idsOf(each.part, { asTools: syntax !== "plain" });
      const tokens = ids.map((id) => ({ id, weight: each.weight }));
      if (syntax === "comfyui") filler.addGroup(tokens);
      else if (isText) filler.addText(tokens, syntax === "a1111");
      else filler.addWhole(tokens, syntax === "a1111");
    }
  }
  const words = parts.flatMap((each) =>
    each === "break" || typeof each.part === "string" ? [] : each.part.ids,
  );
  return assembled(tokenizer, filler.finish(), new Set(words));
}

/** More chunks, empty ones: for the encoder whose prompt is the shorter of the two. */
export function withChunks(
  tokenizer: Tokenizer,
  chunks: PromptChunks,
  chunkCount: number,
): PromptChunks {
  const { ids, weights, endIndex } = chunks;
  const missing = chunkCount - ids.length / promptTokenCount;
  if (missing === 0) return chunks;
  const empty = assembled(tokenizer, Array<Token[]>(missing).fill([]));
  return {
    ids: new Int32Array([...ids, ...empty.ids]),
    weights: new Float32Array([...weights, ...empty.weights]),
    endIndex,
  };
}

// --- internal ---

interface Token {
  id: number;
  weight: number;
}

/** Without its two marks. */
const chunkLength = promptTokenCount - 2;

/** A1111's default of "Prompt word wrap length limit". */
const commaBacktrack = 20;

/** ComfyUI's `max_word_length`: so many tokens or more are cut where the chunk ends. */
const groupLength = 8;

class ChunkFiller {
  private readonly done: Token[][] = [];
  private current: Token[] = [];
  /** Index of the last comma in the chunk; -1 for none. */
  private lastComma = -1;

  constructor(private readonly comma: number | null) {}

  next(): void {
    this.done.push(this.current);
    this.current = [];
    this.lastComma = -1;
  }

  /** `wraps`: what stands behind a near comma moves to the next chunk. */
  addText(tokens: readonly Token[], wraps: boolean): void {
    for (const token of tokens) {
      if (token.id === this.comma) this.lastComma = this.current.length;
      else if (wraps) this.wrap();
      if (this.current.length === chunkLength) this.next();
      this.current.push(token);
    }
  }

  /** Tokens that stay in one chunk, unless they are too many for any. */
  addWhole(tokens: readonly Token[], wraps: boolean): void {
    if (wraps) this.wrap();
    if (this.current.length + tokens.length > chunkLength && this.current.length > 0) this.next();
    if (tokens.length > chunkLength) this.addText(tokens, false);
    else this.current.push(...tokens);
  }

  /** ComfyUI's: a text between weights or embeddings, or the vectors of an embedding. */
  addGroup(tokens: readonly Token[]): void {
    let rest = tokens;
    while (rest.length > 0) {
      const room = chunkLength - this.current.length;
      if (rest.length <= room) {
        this.current.push(...rest);
        return;
      }
      if (tokens.length >= groupLength) {
        this.current.push(...rest.slice(0, room));
        rest = rest.slice(room);
      }
      this.next();
    }
  }

  finish(): Token[][] {
    if (this.current.length > 0 || this.done.length === 0) this.next();
    return this.done;
  }

  // --- internal ---

  private wrap(): void {
    const { current, lastComma } = this;
    if (current.length < chunkLength || lastComma === -1) return;
    if (current.length - lastComma > commaBacktrack) return;
    this.current = current.slice(0, lastComma + 1);
    this.next();
    this.current = current.slice(lastComma + 1);
  }
}

function assembled(
  tokenizer: Tokenizer,
  chunks: readonly (readonly Token[])[],
  words: ReadonlySet<number> = new Set(),
): PromptChunks {
  const { bos, eos, pad } = tokenizer.marks;
  const ids = new Int32Array(chunks.length * promptTokenCount).fill(pad);
  const weights = new Float32Array(ids.length).fill(1);
  for (const [index, tokens] of chunks.entries()) {
    const first = index * promptTokenCount;
    ids.set([bos, ...tokens.map(({ id }) => id), eos], first);
    for (const [at, { weight }] of tokens.entries()) weights[first + 1 + at] = weight;
  }
  const endIndex = tokenizer.endIndexOf(ids.subarray(0, promptTokenCount), words);
  return { ids, weights, endIndex };
}
