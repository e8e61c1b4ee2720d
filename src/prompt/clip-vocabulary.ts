/**
 * CLIP's vocabulary, which SDXL's text encoders share and single-file checkpoints do not contain:
 * the tokens of all bytes, then one token per merge, then the two marks of a text. The file and
 * its format: src/assets/clip/README.md.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { brotliDecompressSync } from "node:zlib";
import { resources } from "../resources.ts";
import { loadTokenizer, type Tokenizer } from "./tokenizer.ts";
import type { Vocabulary } from "./vocabulary.ts";

const clipMergeCount = 48_894;
const endId = 49_407;

/** SDXL's two tokenizers. */
export async function clipTokenizers(): Promise<{ tokenizer: Tokenizer; tokenizer2: Tokenizer }> {
  const folder = resources.clipVocabulary();
  const vocabulary = clipVocabulary();
  return {
    tokenizer: await loadTokenizer(join(folder, "tokenizer"), endId, vocabulary),
    tokenizer2: await loadTokenizer(join(folder, "tokenizer_2"), endId, vocabulary),
  };
}

/** Tokens and merges. */
export function clipVocabulary(): Vocabulary {
  const path = join(resources.clipVocabulary(), "merges.br");
  const planes = brotliDecompressSync(readFileSync(path));
  const tokens = byteTokens();
  const merges: [string, string][] = [];
  const tokenAt = (plane: number, index: number) => {
    const [low, high] = [plane, plane + 1].map((each) => planes[each * clipMergeCount + index]!);
    return tokens[low! + 256 * high!]!;
  };
  for (let index = 0; index < clipMergeCount; index += 1) {
    const merge: [string, string] = [tokenAt(0, index), tokenAt(2, index)];
    merges.push(merge);
    tokens.push(merge.join(""));
  }
  tokens.push("<|startoftext|>", "<|endoftext|>");
  const ids = new Map(tokens.map((token, id) => [token, id]));
  return { source: "CLIP's vocabulary", ids, merges, addedTokens: null };
}

// --- internal ---

/** Tokens of single bytes as printable characters, then the same as ends of words. */
function byteTokens(): string[] {
  const printable: number[] = [];
  for (const [first, last] of ["!~", "¡¬", "®ÿ"] as const) {
    for (let code = first!.charCodeAt(0); code <= last!.charCodeAt(0); code += 1) {
      printable.push(code);
    }
  }
  const others = Array.from({ length: 256 - printable.length }, (_, index) => 256 + index);
  const tokens = [...printable, ...others].map((code) => String.fromCharCode(code));
  return [...tokens, ...tokens.map((token) => `${token}</w>`)];
}
