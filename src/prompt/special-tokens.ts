/**
 * The tokens that stand for beginning, end, unknown and padding, and any added ones. They are cut
 * out of the text before it is split, so SDXL's second tokenizer, which pads with "!", reads every
 * "!" as 0.
 *
 * Source: transformers `PreTrainedTokenizerBase._from_pretrained` and `TokenizersBackend.__init__`,
 * for which file wins, which flags hold and which ids tokens without one get.
 */
import { join } from "node:path";
import * as v from "valibot";
import { ConfigReader, show } from "../models/config-reader.ts";
import { isPresent } from "../models/files.ts";
import { readJsonFile } from "../models/json.ts";
import type { AddedToken } from "./added-tokens.ts";
import type { Vocabulary } from "./vocabulary.ts";

interface SpecialTokens {
  bos: AddedToken;
  eos: AddedToken;
  unk: AddedToken;
  pad: AddedToken;
  /** All tokens to cut out of the text, by id. */
  added: AddedToken[];
}

/**
 * Reads tokenizer_config.json, special_tokens_map.json and added_tokens.json of `folder` where they
 * exist; CLIP's own tokens are the default. Throws "bad-model" for a token that has no id, or one
 * that is taken, and for settings that would cut or fill prompts otherwise.
 */
export async function readSpecialTokens(
  folder: string,
  vocabulary: Vocabulary,
): Promise<SpecialTokens> {
  const config = await readOptional(join(folder, "tokenizer_config.json"));
  const map = await readOptional(join(folder, "special_tokens_map.json"));
  checkSettings(config);
  const decoder = config.optional("added_tokens_decoder", v.record(v.string(), entry), null);
  // The list of added tokens is the newest way to say it, and replaces the three files.
  const sources = decoder ? [config] : [map, config];
  const named = (key: string) =>
    sources.map((each) => each.optional(key, entry, null)).find(Boolean);
  const tokens = new TokenList(vocabulary);
  if (decoder) {
    for (const [id, token] of Object.entries(decoder)) {
      tokens.declare(config, idOf(config, id), tokenOf(token));
    }
  } else {
    await addLegacyTokens(folder, tokens, {
      addedTokens: vocabulary.addedTokens,
      special: [...roleKeys.map(named), ...listed(config, "extra_special_tokens")],
    });
  }
  const role = (key: string, fallback: string): AddedToken => {
    const token = tokenOf(named(key) ?? fallback, true);
    const found = tokens.find(token);
    const missing = `the ${key} ${show(token.content)} is not in ${vocabulary.source}`;
    return found ?? config.fail(missing);
  };
  const end = "<|endoftext|>";
  const roles = {
    bos: role("bos_token", "<|startoftext|>"),
    eos: role("eos_token", end),
    unk: role("unk_token", end),
    pad: role("pad_token", end),
  };
  for (const token of furtherTokens(sources, named)) tokens.append(tokenOf(token, true));
  return { ...roles, added: tokens.all() };
}

// --- internal ---

const optionalFlag = v.optional(v.boolean());

/** A token as the files write it: its text, or its text with flags. */
const entry = v.union(
  [
    v.string(),
    v.object({
      content: v.pipe(v.string(), v.minLength(1)),
      normalized: optionalFlag,
      special: optionalFlag,
      lstrip: optionalFlag,
      rstrip: optionalFlag,
      single_word: optionalFlag,
    }),
  ],
  "it must be a token: text, or an object with its content",
);
type Entry = v.InferOutput<typeof entry>;

/** An entry of tokenizer.json. */
const entryWithId = v.intersect([v.object({ id: v.pipe(v.number(), v.integer()) }), entry]);

const roleKeys = [
  "bos_token",
  "eos_token",
  "unk_token",
  "sep_token",
  "pad_token",
  "cls_token",
  "mask_token",
];

type Token = Omit<AddedToken, "id">;

/** With the defaults of transformers' AddedToken: what is not special is `normalized`. */
function tokenOf(token: Entry, special?: boolean): Token {
  const flags = typeof token === "string" ? { content: token, special: true } : token;
  const isSpecial = special ?? flags.special ?? false;
  const { content, lstrip = false, rstrip = false, single_word = false } = flags;
  const normalized = flags.normalized ?? !isSpecial;
  return { content, normalized, special: isSpecial, lstrip, rstrip, single_word };
}

/** The added tokens of one tokenizer, each with one id and each id with one token. */
class TokenList {
  private readonly byContent = new Map<string, AddedToken>();
  private readonly byId = new Map<number, string>();

  constructor(private readonly vocabulary: Vocabulary) {
    for (const [content, id] of vocabulary.ids) this.byId.set(id, content);
  }

  all(): AddedToken[] {
    return [...this.byContent.values()].sort((a, b) => a.id - b.id);
  }

  /**
   * Adds a token with the id that `file` gives it; tokens come by id. The first flags of a token
   * hold. With a gap before a new id, versions of transformers differ in the id they take.
   */
  declare(file: ConfigReader, id: number, token: Token): void {
    const known = this.vocabulary.ids.get(token.content) ?? this.byContent.get(token.content)?.id;
    if (known !== undefined && known !== id) {
      file.fail(
        `the added token ${show(token.content)} has the id ${id}, but also the id ${known}`,
      );
    }
    const owner = this.byId.get(id);
    if (owner !== undefined && owner !== token.content) {
      file.fail(`the added token ${show(token.content)} has the id ${id} of ${show(owner)}`);
    }
    if (owner === undefined && id !== this.nextId()) {
      file.fail(
        `the added token ${show(token.content)} has the id ${id}, but the next one after the ` +
          `tokens before it is ${this.nextId()}`,
      );
    }
    this.byId.set(id, token.content);
    if (!this.byContent.has(token.content)) this.byContent.set(token.content, { ...token, id });
  }

  /** A token that has been added, or is in the vocabulary and is now added with these flags. */
  find(token: Token): AddedToken | null {
    const known = this.byContent.get(token.content);
    if (known) return known;
    const id = this.vocabulary.ids.get(token.content);
    if (id === undefined) return null;
    const added = { ...token, id };
    this.byContent.set(token.content, added);
    return added;
  }

  /** Adds a token that may have no id yet: then it gets the next one. */
  append(token: Token): void {
    if (this.find(token)) return;
    const id = this.nextId();
    this.byId.set(id, token.content);
    this.byContent.set(token.content, { ...token, id });
  }

  private nextId(): number {
    return [...this.byId.keys()].reduce((next, each) => Math.max(next, each + 1), 0);
  }
}

interface LegacySources {
  addedTokens: Vocabulary["addedTokens"];
  /** Tokens that have a role: those in added_tokens.json are not `normalized`. */
  special: (Entry | null | undefined)[];
}

/** The tokens of tokenizer.json and, before it, of added_tokens.json, in the order of their ids. */
async function addLegacyTokens(
  folder: string,
  tokens: TokenList,
  { addedTokens, special }: LegacySources,
): Promise<void> {
  const byId = new Map<number, [ConfigReader, Token]>();
  const contents = special.map((token) => (typeof token === "string" ? token : token?.content));
  const path = join(folder, "added_tokens.json");
  if (isPresent(path)) {
    const json = await readJsonFile(path);
    const file = new ConfigReader(path, json);
    for (const content of Object.keys(json as object)) {
      const id = file.required(content, idSchema);
      const token = tokenOf({ content, special: contents.includes(content) });
      const other = byId.get(id)?.[1].content;
      if (other !== undefined) {
        file.fail(`the tokens ${show(other)} and ${show(content)} have the same id ${id}`);
      }
      byId.set(id, [file, token]);
    }
  }
  const file = new ConfigReader(join(folder, "tokenizer.json"), { added_tokens: addedTokens });
  const list = v.array(entryWithId, "it must be tokens");
  for (const token of file.optional("added_tokens", list, null) ?? []) {
    byId.set(token.id, [file, tokenOf(token)]);
  }
  for (const [id, [from, token]] of [...byId].sort(([a], [b]) => a - b)) {
    tokens.declare(from, id, token);
  }
}

/**
 * Tokens with further roles ("mask_token", "my_token"), then those that are only listed;
 * `additional_special_tokens` is the older name of the list.
 */
function furtherTokens(
  sources: readonly ConfigReader[],
  named: (key: string) => Entry | null | undefined,
): Entry[] {
  const oldestFirst = sources.toReversed();
  const isRole = (key: string) => key.endsWith("_token") && !roleKeys.includes(key);
  const others = oldestFirst.flatMap((source) =>
    source.keys().filter((key) => isRole(key) && source.isText(key)),
  );
  const withRoles = [...roleKeys, ...new Set(others)].flatMap((key) => named(key) ?? []);
  const ofModel = oldestFirst.flatMap((each) => listed(each, "model_specific_special_tokens"));
  const older = "additional_special_tokens";
  const [first, ...rest] = oldestFirst.map((source) => listed(source, "extra_special_tokens"));
  const ofConfig = first!.length > 0 ? first! : listed(oldestFirst[0]!, older);
  const extra = [...ofConfig, ...rest.flat()];
  const ofMap = oldestFirst.slice(1).flatMap((source) => listed(source, older));
  return [...withRoles, ...ofModel, ...(extra.length > 0 ? extra : ofMap)];
}

/** A list of tokens, or an object of them by name. */
function listed(source: ConfigReader, key: string): Entry[] {
  const schema = v.union(
    [v.array(entry), v.record(v.string(), entry)],
    "it must be a list of tokens",
  );
  return Object.values(source.optional(key, schema, null) ?? []);
}

async function readOptional(path: string): Promise<ConfigReader> {
  return new ConfigReader(path, isPresent(path) ? await readJsonFile(path) : {});
}

const idSchema = v.pipe(
  v.number("it must be a token id"),
  v.integer("it must be a token id"),
  v.minValue(0, "it must be a token id"),
  v.maxValue(2 ** 31 - 1, "it must be a token id"),
);

function idOf(config: ConfigReader, id: string): number {
  if (/^\d{1,9}$/.test(id)) return Number(id);
  return config.fail(`added_tokens_decoder has ${show(id)}, which is no token id`);
}

/** A huge number means "no limit" in the files of transformers. */
function checkSettings(config: ConfigReader): void {
  const length = config.optional("model_max_length", v.number("it must be a number"), null) ?? 77;
  if (length !== 77 && length <= 1e6) {
    config.fail(`model_max_length is ${length}, which is not supported; SDXL's prompts have 77`);
  }
  config.refuseUnless("padding_side", ["right"]);
  config.refuseUnless("truncation_side", ["right"]);
  if (config.isOn("split_special_tokens", false)) {
    config.fail("split_special_tokens is true, which is not supported; false is");
  }
}
