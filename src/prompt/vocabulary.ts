/**
 * Tokens, their ids and the merges, from vocab.json and merges.txt or from tokenizer.json. All that
 * the tokenizer assumes about them is checked here, once: a token that a merge makes but the
 * vocabulary lacks would otherwise turn into the unknown token.
 */
import { join } from "node:path";
import { BasedXLError } from "../errors.ts";
import { show } from "../models/config-reader.ts";
import { isPresent, readTextFile } from "../models/files.ts";
import { readJsonFile } from "../models/json.ts";
import { readTokenizerJson } from "./tokenizer-json.ts";

type Merge = [string, string];

export interface Vocabulary {
  /** The file that has the tokens: "vocab.json" or "tokenizer.json". */
  source: string;
  /** Token to id. */
  ids: Map<string, number>;
  /** Pairs in the order they merge. */
  merges: Merge[];
  /** Of tokenizer.json, as it stands there; null where the folder has none. */
  addedTokens: unknown[] | null;
}

/**
 * The vocabulary of `folder`. tokenizer.json comes before the two older files, as in transformers.
 * Throws "bad-model" naming the entry or the line that is wrong.
 */
export async function readVocabulary(folder: string): Promise<Vocabulary> {
  const path = join(folder, "tokenizer.json");
  if (isPresent(path)) {
    const { vocab, merges, addedTokens } = await readTokenizerJson(path);
    const ids = tokenIds(path, vocab);
    merges.forEach((merge, index) => {
      checkMerge(merge, ids, `${path}, merge ${index + 1}`, "the vocabulary");
    });
    return { source: "tokenizer.json", ids, merges, addedTokens };
  }
  const vocabPath = join(folder, "vocab.json");
  const ids = tokenIds(vocabPath, await readJsonFile(vocabPath));
  const merges = await readMerges(join(folder, "merges.txt"), ids);
  return { source: "vocab.json", ids, merges, addedTokens: null };
}

// --- internal ---

function tokenIds(path: string, json: unknown): Map<string, number> {
  if (json === null || typeof json !== "object" || Array.isArray(json)) {
    throw new BasedXLError("bad-model", `${path} must hold a JSON object of tokens and their ids.`);
  }
  const ids = new Map<string, number>();
  const owners = new Map<number, string>();
  for (const [token, id] of Object.entries(json)) {
    if (!Number.isInteger(id) || id < 0 || id >= 2 ** 31) {
      const problem = `the token ${show(token)} has the id ${show(id)}, which is no whole number`;
      throw new BasedXLError("bad-model", `${path}: ${problem}.`);
    }
    const owner = owners.get(id);
    if (owner !== undefined) {
      const problem = `the tokens ${show(owner)} and ${show(token)} have the same id ${id}`;
      throw new BasedXLError("bad-model", `${path}: ${problem}.`);
    }
    owners.set(id, token);
    ids.set(token, id);
  }
  if (ids.size === 0) throw new BasedXLError("bad-model", `${path} has no tokens.`);
  return ids;
}

async function readMerges(path: string, ids: Map<string, number>): Promise<Merge[]> {
  const needed = "the tokenizer needs vocab.json and merges.txt, or tokenizer.json";
  const lines = (await readTextFile(path, needed)).split(/\r?\n/);
  const merges: Merge[] = [];
  lines.forEach((line, index) => {
    const isEnd = line === "" && index === lines.length - 1;
    if (isEnd || line.startsWith("#version")) return;
    const [left, right, ...more] = line.split(" ");
    if (!left || !right || more.length > 0) {
      const problem = `${show(line)} is not two tokens with one space between them`;
      throw new BasedXLError("bad-model", `${path}, line ${index + 1}: ${problem}.`);
    }
    checkMerge([left, right], ids, `${path}, line ${index + 1}`, "vocab.json");
    merges.push([left, right]);
  });
  // Without any, every word would fall apart into letters: an image of another prompt.
  if (merges.length === 0) throw new BasedXLError("bad-model", `${path} has no merges.`);
  return merges;
}

function checkMerge([left, right]: Merge, ids: Map<string, number>, place: string, file: string) {
  const missing = [left, right, left + right].find((token) => !ids.has(token));
  if (missing === undefined) return;
  const problem = `the token ${show(missing)} is not in ${file}; are both of one model?`;
  throw new BasedXLError("bad-model", `${place}: ${problem}`);
}
