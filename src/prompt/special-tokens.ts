/**
 * The tokens that stand for beginning, end, unknown and padding, and any added ones. They are cut
 * out of the text before it is split, so SDXL's second tokenizer, which pads with "!", reads every
 * "!" as 0.
 *
 * Source: transformers `CLIPTokenizer` and `from_pretrained`, for which file wins and which flags
 * hold.
 */
import { join } from "node:path";
import * as v from "valibot";
import { ConfigReader, show } from "../models/config-reader.ts";
import { isPresent } from "../models/files.ts";
import { readJsonFile } from "../models/json.ts";

/**
 * An entry of tokenizer.json's `added_tokens`. `normalized`: looked for in the lower-cased text.
 */
export interface AddedToken {
  id: number;
  content: string;
  normalized: boolean;
  special: boolean;
  lstrip: boolean;
  rstrip: boolean;
  single_word: boolean;
}

export interface SpecialTokens {
  bos: AddedToken;
  eos: AddedToken;
  unk: AddedToken;
  pad: AddedToken;
  /** All tokens to cut out of the text, by id. */
  added: AddedToken[];
}

/**
 * Reads tokenizer_config.json and special_tokens_map.json of `folder` where they exist; CLIP's own
 * tokens are the default. Throws "bad-model" for a token that has no id or a length other than 77.
 */
export async function readSpecialTokens(
  folder: string,
  vocabulary: Map<string, number>,
): Promise<SpecialTokens> {
  const config = await readOptional(join(folder, "tokenizer_config.json"));
  const map = await readOptional(join(folder, "special_tokens_map.json"));
  checkLength(config);
  const decoder = config.optional("added_tokens_decoder", v.record(v.string(), entry), null);
  const added = new Map<string, AddedToken>();
  for (const [id, token] of Object.entries(decoder ?? {})) {
    const flags = typeof token === "string" ? { content: token } : token;
    added.set(flags.content, { ...noFlags, ...flags, id: decoderId(config, id) });
  }
  // The list of added tokens is the newer way to say it, and replaces the map.
  const sources = decoder ? [config] : [map, config];
  const role = (key: string, fallback: string): AddedToken => {
    const found = sources.map((reader) => reader.optional(key, entry, null)).find(Boolean);
    const token = found ?? fallback;
    const flags = typeof token === "string" ? { content: token } : token;
    const known = added.get(flags.content);
    if (known) return known;
    const id = vocabulary.get(flags.content);
    if (id === undefined) {
      return config.fail(`the ${key} ${show(flags.content)} is not in vocab.json`);
    }
    const result = { ...noFlags, ...flags, special: true, id };
    added.set(result.content, result);
    return result;
  };
  const end = "<|endoftext|>";
  const roles = {
    bos: role("bos_token", "<|startoftext|>"),
    eos: role("eos_token", end),
    unk: role("unk_token", end),
    pad: role("pad_token", end),
  };
  return { ...roles, added: [...added.values()].sort((a, b) => a.id - b.id) };
}

// --- internal ---

const noFlags = {
  normalized: false,
  special: false,
  lstrip: false,
  rstrip: false,
  single_word: false,
};

const flag = v.optional(v.boolean(), false);

/** A token as the files write it: its text, or its text with flags. */
const entry = v.union(
  [
    v.string(),
    v.object({
      content: v.pipe(v.string(), v.minLength(1)),
      normalized: flag,
      special: flag,
      lstrip: flag,
      rstrip: flag,
      single_word: flag,
    }),
  ],
  "it must be a token: text, or an object with its content",
);

async function readOptional(path: string): Promise<ConfigReader> {
  return new ConfigReader(path, isPresent(path) ? await readJsonFile(path) : {});
}

function decoderId(config: ConfigReader, id: string): number {
  if (/^\d{1,9}$/.test(id)) return Number(id);
  return config.fail(`added_tokens_decoder has ${show(id)}, which is no token id`);
}

/** A huge number means "no limit" in the files of transformers. */
function checkLength(config: ConfigReader): void {
  const length = config.optional("model_max_length", v.number("it must be a number"), 77);
  if (length === 77 || length > 1e6) return;
  config.fail(`model_max_length is ${length}, which is not supported; SDXL's prompts have 77`);
}
