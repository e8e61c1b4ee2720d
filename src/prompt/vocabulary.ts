/**
 * Reads vocab.json and merges.txt. Everything the tokenizer assumes about them is checked here,
 * once: a token that a merge makes but the vocabulary lacks would otherwise turn into the unknown
 * token.
 */
import { join } from "node:path";
import { BasedXLError } from "../errors.ts";
import { show } from "../models/config-reader.ts";
import { readTextFile } from "../models/files.ts";
import { readJsonFile } from "../models/json.ts";

/** Token to id, from `folder`/vocab.json. Throws "bad-model" naming the entry that is wrong. */
export async function readVocabulary(folder: string): Promise<Map<string, number>> {
  const path = join(folder, "vocab.json");
  const json = await readJsonFile(path);
  if (json === null || typeof json !== "object" || Array.isArray(json)) {
    throw new BasedXLError("bad-model", `${path} must hold a JSON object of tokens and their ids.`);
  }
  const vocabulary = new Map<string, number>();
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
    vocabulary.set(token, id);
  }
  if (vocabulary.size === 0) throw new BasedXLError("bad-model", `${path} has no tokens.`);
  return vocabulary;
}

/** Pairs in the order they merge, from `folder`/merges.txt. Throws "bad-model" naming the line. */
export async function readMerges(
  folder: string,
  vocabulary: Map<string, number>,
): Promise<[string, string][]> {
  const path = join(folder, "merges.txt");
  const lines = (await readTextFile(path, "the tokenizer needs vocab.json and merges.txt")).split(
    /\r?\n/,
  );
  const merges: [string, string][] = [];
  lines.forEach((line, index) => {
    const isEnd = line === "" && index === lines.length - 1;
    if (isEnd || line.startsWith("#version")) return;
    const [left, right, ...more] = line.split(" ");
    if (!left || !right || more.length > 0) {
      const problem = `${show(line)} is not two tokens with one space between them`;
      throw new BasedXLError("bad-model", `${path}, line ${index + 1}: ${problem}.`);
    }
    const missing = [left, right, left + right].find((token) => !vocabulary.has(token));
    if (missing !== undefined) {
      const problem = `the token ${show(missing)} is not in vocab.json; are both of one model?`;
      throw new BasedXLError("bad-model", `${path}, line ${index + 1}: ${problem}`);
    }
    merges.push([left, right]);
  });
  // Without any, every word would fall apart into letters: a image of another prompt.
  if (merges.length === 0) throw new BasedXLError("bad-model", `${path} has no merges.`);
  return merges;
}
