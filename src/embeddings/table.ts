/**
 * The embeddings of a request: those that its prompts mention, each read once. Their vectors get
 * the token ids behind each encoder's vocabulary, in the order of the vectors.
 */
import assert from "node:assert/strict";
import { BasedXLError, escaped } from "../errors.ts";
import { joined } from "../native/joined.ts";
import type { PromptPart, WordIds } from "../prompt/tokenizer.ts";
import type { EmbeddingCatalog } from "./catalog.ts";
import type { Embedding, TextEncoders } from "./file.ts";
import type { Mention } from "./words.ts";

export class EmbeddingTable {
  readonly used: Embedding[] = [];
  readonly warnings: string[] = [];
  /** f32 rows of all vectors for each encoder, in the order of their ids. */
  readonly rows: Float32Array;
  readonly rows2: Float32Array;
  /** null: the mention is text, as in a prompt that was written for another model. */
  private readonly known = new Map<string, Placed | null>();
  private nextId: number;
  private nextId2: number;

  /** Reads what `prompts` mention. Throws "bad-option" and "bad-weights" as the catalog does. */
  constructor(
    private readonly catalog: EmbeddingCatalog,
    private readonly encoders: TextEncoders,
    prompts: Iterable<string>,
  ) {
    this.nextId = encoders.clip?.vocabSize ?? 0;
    this.nextId2 = encoders.clip2.vocabSize;
    for (const prompt of prompts) {
      for (const part of catalog.split(prompt)) if (typeof part !== "string") this.place(part);
    }
    this.rows = joined(this.used.flatMap(({ rows }) => rows ?? []));
    this.rows2 = joined(this.used.flatMap(({ rows2 }) => rows2 ?? []));
  }

  /** One of the prompts as each of the two tokenizers takes it. */
  parts(prompt: string): [PromptPart[], PromptPart[]] {
    const pair: [PromptPart[], PromptPart[]] = [[], []];
    for (const part of this.catalog.split(prompt)) {
      const placed = typeof part === "string" ? null : this.known.get(this.keyOf(part));
      assert(placed !== undefined, "a prompt that was not there when the embeddings were read");
      if (placed !== null) {
        pair[0].push(placed.first);
        pair[1].push(placed.second);
      } else {
        const text = typeof part === "string" ? part : part.name;
        for (const list of pair) list.push(text);
      }
    }
    return pair;
  }

  // --- internal ---

  /** The same for every way to write a name. */
  private keyOf({ name }: Mention): string {
    const { path, name: own } = this.catalog.find(name).source;
    return `${path}\n${own}`;
  }

  private place(mention: Mention): void {
    const { source, given } = this.catalog.find(mention.name);
    const key = this.keyOf(mention);
    const known = this.known.get(key);
    if (known || (known === null && !mention.explicit)) return;
    try {
      this.known.set(key, this.placed(source.read(this.encoders)));
    } catch (error) {
      // A word that happens to be the name of a file for another model stays a word.
      if (mention.explicit || given || !(error instanceof BasedXLError)) throw error;
      this.known.set(key, null);
      this.warnings.push(`"${escaped(mention.name, 60)}" is read as text: ${error.message}`);
    }
  }

  private placed(embedding: Embedding): Placed {
    const { name, rows, rows2, warnings } = embedding;
    const { clip, clip2 } = this.encoders;
    const first = idsFrom(this.nextId, (rows?.length ?? 0) / (clip?.hiddenSize ?? 1));
    const second = idsFrom(this.nextId2, (rows2?.length ?? 0) / clip2.hiddenSize);
    this.nextId += first.length;
    this.nextId2 += second.length;
    this.used.push(embedding);
    this.warnings.push(...warnings);
    return { first: { word: name, ids: first }, second: { word: name, ids: second } };
  }
}

// --- internal ---

/** The ids of one embedding for each tokenizer. */
interface Placed {
  first: WordIds;
  second: WordIds;
}

function idsFrom(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, index) => first + index);
}
