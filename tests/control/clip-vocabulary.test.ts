/**
 * CLIP's vocabulary as the product has it: ids of published examples, and those that transformers
 * gives for prompts of all kinds (tests/reference/make_clip_tokens.py).
 */
import { describe, expect, test } from "bun:test";
import { clipTokenizers } from "../../src/prompt/clip-vocabulary.ts";
import cases from "../fixtures/tokens-clip.json";

const { tokenizer, tokenizer2 } = await clipTokenizers();

/** Ids up to the first of the padding. */
function idsOf(text: string, second = false): number[] {
  const ids = [...(second ? tokenizer2 : tokenizer).encode(text).ids];
  expect(ids).toHaveLength(77);
  while (ids.length > 1 && ids.at(-1) === ids.at(-2)) ids.pop();
  return ids;
}

describe("CLIP's vocabulary", () => {
  test("has the published ids", () => {
    expect(idsOf("a photo of a cat", true).slice(0, 7)).toEqual([
      49406, 320, 1125, 539, 320, 2368, 49407,
    ]);
    expect(idsOf("an astronaut riding a horse on mars")).toEqual([
      49406, 550, 18376, 6765, 320, 4558, 525, 7496, 49407,
    ]);
    expect(idsOf("hello world!")).toEqual([49406, 3306, 1002, 256, 49407]);
    expect([tokenizer.idLimit, tokenizer2.idLimit]).toEqual([49408, 49408]);
  });

  test("gives transformers' ids for either padding", () => {
    expect(cases.length).toBeGreaterThan(20);
    for (const [pad, prompt, ids] of cases as [string, string, number[]][]) {
      expect([prompt, idsOf(prompt, pad === "!")]).toEqual([prompt, ids]);
    }
  });
});
