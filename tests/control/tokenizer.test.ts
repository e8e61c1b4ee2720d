/**
 * The tokenizer against transformers' CLIPTokenizer (tests/fixtures, made by tests/reference), and
 * every way its files can be broken. Ids must be equal, not close: one wrong id is another prompt.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { BasedXLError } from "../../src/errors.ts";
import { loadTokenizer } from "../../src/prompt/tokenizer.ts";
import golden from "../fixtures/golden/tokens.json";
import odd from "../fixtures/tokens-odd.json";

const model = join(import.meta.dir, "../fixtures/golden/model");
const bos = 820;
const eos = 821;

const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** A folder with golden's vocabulary and merges, and `files` beside or instead of them. */
function folderWith(files: Record<string, unknown>): string {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-tokenizer-"));
  folders.push(folder);
  for (const name of ["vocab.json", "merges.txt"]) {
    if (files[name] === undefined) copyFileSync(join(model, "tokenizer", name), join(folder, name));
  }
  for (const [name, content] of Object.entries(files)) {
    if (content === null) continue;
    const text = typeof content === "string" ? content : JSON.stringify(content);
    writeFileSync(join(folder, name), text);
  }
  return folder;
}

async function refusal(files: Record<string, unknown>): Promise<string> {
  const error = await loadTokenizer(folderWith(files), eos).then(
    () => null,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(BasedXLError);
  expect((error as BasedXLError).code).toBe("bad-model");
  return (error as BasedXLError).message;
}

describe("ids equal transformers'", () => {
  test("both tokenizers of the reference model, all prompts", async () => {
    const first = await loadTokenizer(join(model, "tokenizer"), eos);
    const second = await loadTokenizer(join(model, "tokenizer_2"), eos);
    for (const { prompt, ids, ids_2 } of golden) {
      expect([...first.encode(prompt).ids], prompt).toEqual(ids);
      expect([...second.encode(prompt).ids], prompt).toEqual(ids_2);
    }
  });

  for (const [name, files] of Object.entries(odd.tokenizers)) {
    test(`odd text, special-token files "${name}"`, async () => {
      const { special_tokens_map, tokenizer_config, pad } = files;
      const folder = folderWith({
        "special_tokens_map.json": special_tokens_map,
        "tokenizer_config.json": tokenizer_config,
      });
      const tokenizer = await loadTokenizer(folder, eos);
      for (const { text, ids } of odd.texts) {
        const wanted = (ids as Record<string, number[]>)[name] ?? ids.bare;
        const padded = [...wanted, ...new Array<number>(77 - wanted.length).fill(pad)];
        expect([...tokenizer.encode(text).ids], JSON.stringify(text)).toEqual(padded);
      }
    });
  }
});

describe("warnings about a prompt", () => {
  test("text that did not fit is given back, and only that", async () => {
    const tokenizer = await loadTokenizer(join(model, "tokenizer"), eos);
    expect(tokenizer.encode("").truncated).toBe("");
    expect(tokenizer.encode("cat ".repeat(75)).truncated).toBe("");
    expect(tokenizer.encode(`${"cat ".repeat(75)}Red CIRCLE!`).truncated).toBe("red circle!");
    expect([...tokenizer.encode("cat ".repeat(76)).ids].at(-1)).toBe(eos);
  });

  test("the pooled token is the first EOS of the text encoder's config", async () => {
    const text = "a cat <|endoftext|> b";
    const at = async (id: number) =>
      (await loadTokenizer(join(model, "tokenizer_2"), id)).encode(text).endIndex;
    expect(await at(eos)).toBe(3);
    expect(await at(bos)).toBe(0);
    expect(await at(5)).toBe(0);
  });

  test("with the wrong EOS id 2 of older configs, it is the largest id", async () => {
    const tokenizer = await loadTokenizer(join(model, "tokenizer_2"), 2);
    expect(tokenizer.encode("a cat").endIndex).toBe(3);
    expect(tokenizer.idLimit).toBe(822);
  });

  test("an added token past the vocabulary raises the limit of ids", async () => {
    const folder = folderWith({
      "tokenizer_config.json": { added_tokens_decoder: { 822: { content: "<new>" } } },
    });
    const tokenizer = await loadTokenizer(folder, eos);
    expect(tokenizer.idLimit).toBe(823);
    expect([...tokenizer.encode("a <new>").ids].slice(0, 4)).toEqual([bos, 320, 822, eos]);
  });
});

describe("any text", () => {
  test("gives 77 ids that begin with BOS and hold an EOS", async () => {
    for (const part of ["tokenizer", "tokenizer_2"]) {
      const tokenizer = await loadTokenizer(join(model, part), eos);
      const check = (text: string) => {
        const { ids, endIndex } = tokenizer.encode(text);
        expect(ids).toHaveLength(77);
        expect(ids[0]).toBe(bos);
        expect(ids[endIndex]).toBe(eos);
        expect(ids.every((id) => id >= 0 && id < tokenizer.idLimit)).toBe(true);
      };
      const unit = fc.constantFrom<fc.StringConstraints["unit"][]>("binary", "grapheme");
      fc.assert(
        fc.property(
          unit.chain((u) => fc.string({ unit: u, maxLength: 300 })),
          check,
        ),
      );
      // Halves of surrogate pairs, which no valid text holds but a terminal can give.
      fc.assert(
        fc.property(fc.array(fc.nat(0xffff), { maxLength: 100 }), (units) =>
          check(String.fromCharCode(...units)),
        ),
      );
    }
  });
});

describe("broken files", () => {
  test("no vocab.json", async () => {
    expect(await refusal({ "vocab.json": null })).toMatch(/vocab\.json does not exist/);
  });
  test("no merges.txt", async () => {
    expect(await refusal({ "merges.txt": null })).toMatch(
      /merges\.txt does not exist.*vocab\.json/,
    );
  });
  test("vocab.json that is cut off", async () => {
    expect(await refusal({ "vocab.json": '{"a": 0, ' })).toMatch(/vocab\.json is not valid JSON/);
  });
  test("vocab.json that is a list", async () => {
    expect(await refusal({ "vocab.json": ["a"] })).toMatch(/vocab\.json must hold a JSON object/);
  });
  test("vocab.json without tokens", async () => {
    expect(await refusal({ "vocab.json": {} })).toMatch(/vocab\.json has no tokens/);
  });
  test("an id that is no number", async () => {
    const message = await refusal({ "vocab.json": { a: "x" } });
    expect(message).toMatch(/the token "a" has the id "x", which is no whole number/);
  });
  test("one id for two tokens", async () => {
    const message = await refusal({ "vocab.json": { a: 1, b: 1 } });
    expect(message).toMatch(/the tokens "a" and "b" have the same id 1/);
  });
  test("merges.txt without merges", async () => {
    expect(await refusal({ "merges.txt": "#version: 0.2\n" })).toMatch(/merges\.txt has no merges/);
  });
  test("a merge of three", async () => {
    const message = await refusal({ "merges.txt": "#version: 0.2\ni n\na b c\n" });
    expect(message).toMatch(/merges\.txt, line 3: "a b c" is not two tokens/);
  });
  test("a merge of one", async () => {
    expect(await refusal({ "merges.txt": "abc\n" })).toMatch(
      /merges\.txt, line 1: "abc" is not two/,
    );
  });
  test("a merge that makes a token the vocabulary lacks", async () => {
    const message = await refusal({ "merges.txt": "#version: 0.2\nq q\n" });
    expect(message).toMatch(/line 2: the token "qq" is not in vocab\.json/);
  });
  test("merges of another vocabulary", async () => {
    const message = await refusal({ "vocab.json": { a: 0 } });
    expect(message).toMatch(/merges\.txt, line 2: the token "i" is not in vocab\.json/);
  });
  test("a special token without an id", async () => {
    const message = await refusal({ "special_tokens_map.json": { pad_token: "<pad>" } });
    expect(message).toMatch(/pad_token "<pad>" is not in vocab\.json/);
  });
  test("a special token that is no token", async () => {
    const message = await refusal({ "tokenizer_config.json": { eos_token: 7 } });
    expect(message).toMatch(/tokenizer_config\.json: eos_token is 7, but it must be a token/);
  });
  test("an added token whose key is no id", async () => {
    const message = await refusal({
      "tokenizer_config.json": { added_tokens_decoder: { x: { content: "<new>" } } },
    });
    expect(message).toMatch(/added_tokens_decoder has "x", which is no token id/);
  });
  test("a prompt length other than 77", async () => {
    const message = await refusal({ "tokenizer_config.json": { model_max_length: 64 } });
    expect(message).toMatch(
      /model_max_length is 64, which is not supported; SDXL's prompts have 77/,
    );
  });
  test("tokenizer_config.json that is no JSON", async () => {
    const message = await refusal({ "tokenizer_config.json": "{" });
    expect(message).toMatch(/tokenizer_config\.json is not valid JSON/);
  });
});
