/**
 * Prompts that images combine by AND, against A1111's own parser (Forge's) on random ones, and what
 * is refused.
 */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { planRequest } from "../../src/pipeline/request.ts";
import { combinedPrompts } from "../../src/prompt/combined.ts";
import notes from "../fixtures/combined.json";
import { refusal } from "../support/refusal.ts";

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));

function planOf(changes: object, rankCount = 1) {
  const given = { promptSyntax: "a1111", prompt: "a AND b", width: 64, height: 64, stepCount: 4 };
  return planRequest(
    { ...given, ...changes } as Parameters<typeof planRequest>[0],
    model,
    rankCount,
  );
}

test("prompts are split, and weighed, as A1111 does", () => {
  expect(notes.splits.length).toBeGreaterThan(100);
  for (const [prompt, parts] of notes.splits as [string, [string, number][]][]) {
    const ours = combinedPrompts(prompt).map(({ text, weight }) => [text, weight]);
    expect([prompt, ours]).toEqual([prompt, parts]);
  }
});

describe("a request", () => {
  test("has a branch for each prompt, on every rank", () => {
    const [batch] = planOf({}, 2).batches;
    expect(batch?.images[0]?.tokens.prompts.length).toBe(2);
    expect(batch?.layout.text).toBe(
      "2 ranks = 2 patches (4 + 4 rows), 3 guidance branches on each",
    );
  });

  test("that combines or weighs prompts has guidance at any scale", () => {
    const guidance = (changes: object) => planOf(changes).batches[0]?.guidance;
    expect(guidance({ guidanceScale: 1 })).toBe(true);
    expect(guidance({ guidanceScale: 1, prompt: "a :1.2" })).toBe(true);
    expect(guidance({ guidanceScale: 1, prompt: "a" })).toBe(false);
    const cfgpp = { prompt: "a", scheduler: "euler_cfg_pp", guidanceScale: 1 };
    expect(guidance(cfgpp)).toBe(true);
  });

  test("keeps images apart that combine another number of prompts", () => {
    const prompt = ["a AND b", "c AND d :2", "a", "a AND b AND c"];
    const plan = planOf({ prompt, batchSize: 4 });
    expect(plan.batches.map(({ images }) => images.length)).toEqual([2, 1, 1]);
  });

  test("reads AND as text in other syntaxes", () => {
    for (const promptSyntax of ["plain", "comfyui"]) {
      expect(planOf({ promptSyntax }).batches[0]?.images[0]?.tokens.weights).toEqual([1]);
    }
  });

  test("has each prompt's own schedule", () => {
    const { tokens } = planOf({ prompt: "[a:b:0.5] AND c" }).batches[0]!.images[0]!;
    expect(tokens.stepSets).toEqual([0, 0, 0, 1]);
    const [a, b, c, same] = tokens.prompts;
    expect(tokens.prompts.length).toBe(4);
    expect(a!.ids).not.toEqual(b!.ids);
    expect(c!.ids).toEqual(same!.ids);
  });

  test.each([
    [
      { prompt: "a AND b :-1", guidanceEnd: 0.5 },
      "The weights of the prompts add up to 0, so they have no mean, which guidanceRescale, \
guidanceStart and guidanceEnd need: more than 0 is possible.",
    ],
    [
      { prompt: Array(17).fill("a").join(" AND ") },
      "prompt combines 17 prompts by AND: 16 are possible.",
    ],
    [{ prompt2: "a AND b" }, "prompt2 combines prompts by AND, which only prompt can."],
    [
      { prompt: "a", scheduler: "euler_cfg_pp", guidanceRescale: 0.5 },
      "guidanceRescale must be 0 with the scheduler euler_cfg_pp.",
    ],
  ])("refuses %j", async (changes, expected) => {
    expect(await refusal(async () => planOf(changes), "bad-option")).toBe(expected);
  });
});
