/**
 * How prompts are read: pieces, weights and chunks as A1111 and ComfyUI make them, which texts each
 * encoder reads, and what is refused or warned about.
 */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { settingsOf } from "../../src/distributed/settings.ts";
import type { EmbeddingSource } from "../../src/embeddings/file.ts";
import { EmbeddingCatalog, EmbeddingTable } from "../../src/embeddings.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import type { GpuOptions } from "../../src/native/handle.ts";
import { defaultRules, PromptEncoder, type PromptRules } from "../../src/pipeline/prompts.ts";
import { planRequest } from "../../src/pipeline/request.ts";
import { parseA1111 } from "../../src/prompt/a1111.ts";
import { parseComfyui } from "../../src/prompt/comfyui.ts";
import { piecesOf } from "../../src/prompt/pieces.ts";
import { turnAt, turnsOf } from "../../src/prompt/turns.ts";
import { asFlag } from "../../src/settings/values.ts";
import { digestOfIds, digestOfPieces, digestsOf, promptNotes } from "../support/prompt-notes.ts";
import { refusal } from "../support/refusal.ts";

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const prompts = Object.keys(promptNotes.prompts);

/** The embeddings of the reference, of zeros: ids are all that is read here. */
const catalog = new EmbeddingCatalog(
  Object.entries(promptNotes.vectors).map(([name, count]): EmbeddingSource => {
    const rows = new Float32Array(count * model.clip!.hiddenSize);
    const rows2 = new Float32Array(count * model.clip2.hiddenSize);
    const read = () => {
      return { name, path: name, rows, rows2, vectorCount: count, hash: "", warnings: [] };
    };
    return { name, path: name, read };
  }),
);

function encoderOf(changes: Partial<PromptRules>, ...texts: string[]) {
  const warnings: string[] = [];
  const all = { ...defaultRules, ...changes };
  const pieces = texts.flatMap((text) => piecesOf(text, all.promptSyntax));
  const embeddings = new EmbeddingTable(catalog, model, new Set(pieces.map(({ text }) => text)));
  const encoder = new PromptEncoder(model, (sentence) => void warnings.push(sentence), {
    embeddings,
    rules: all,
    naming: asFlag,
  });
  return { encoder, warnings };
}

describe("the tools' own parsers", () => {
  test("make the same pieces of 300 prompts", () => {
    expect(prompts.length).toBeGreaterThanOrEqual(300);
    for (const prompt of prompts) {
      const { a1111, comfyui } = digestsOf(prompt);
      expect(digestOfPieces(parseA1111(prompt)), JSON.stringify(prompt)).toBe(a1111);
      expect(digestOfPieces(parseComfyui(prompt)), JSON.stringify(prompt)).toBe(comfyui);
    }
  });

  test.each(["a1111", "comfyui"] as const)("make the same chunks: %s", (promptSyntax) => {
    for (const prompt of prompts) {
      const names = Object.keys(promptNotes.vectors).join("|");
      const isMarked = promptSyntax === "comfyui";
      const word = new RegExp(`(?<![^\\s(])(?:${names})(?![^\\s:),])`, "g");
      const text = isMarked ? prompt.replace(word, "embedding:$&") : prompt;
      const { encoder } = encoderOf({ promptSyntax }, text);
      const { ids, ids2, weights, weights2 } = encoder.prompt(text);
      const recorded = digestsOf(prompt);
      const digest = digestOfIds([
        [ids, weights],
        [ids2, weights2],
      ]);
      const expected = isMarked ? recorded.chunksComfyui : recorded.chunksA1111;
      if (expected === "-") continue;
      expect(digest, JSON.stringify(prompt)).toBe(expected);
    }
  });

  test("make the same schedules", () => {
    for (const prompt of prompts) {
      const turns = turnsOf(prompt, promptNotes.steps);
      const digest = digestOfPieces(turns.map(({ text, end }) => ({ text, weight: end })));
      expect(digest, JSON.stringify(prompt)).toBe(digestsOf(prompt).turns);
    }
  });

  test("keep the text and give numbers, whatever the text is", () => {
    const marks = fc.constantFrom(..."()[]:\\|,.1- ab".split(""), "BREAK", ":1.2)", "(a:.5)");
    const texts = fc.oneof(
      fc.array(marks, { maxLength: 40 }).map((parts) => parts.join("")),
      fc.string({ unit: "binary", maxLength: 40 }),
    );
    fc.assert(
      fc.property(texts, fc.constantFrom("a1111", "comfyui", "plain"), (text, syntax) => {
        const pieces = piecesOf(text, syntax);
        for (const { weight } of pieces) expect(weight).toBeFinite();
        // What is left out are brackets, their numbers, backslashes and the space at breaks.
        const letters = (of: string) => of.replace(/[^\p{L}]/gu, "");
        expect(letters(pieces.map((piece) => piece.text).join(""))).toBe(letters(text));
        const turns = turnsOf(text, 5);
        expect(turns.at(-1)?.end).toBe(5);
        for (const turn of turns) expect(turn.text.length).toBeLessThanOrEqual(text.length);
      }),
    );
  });

  test("go as deep as a prompt is long", () => {
    const depth = 3000;
    const text = `${"(".repeat(depth)}a${")".repeat(depth)}`;
    expect(parseComfyui(text).map((piece) => piece.text)).toEqual(["a"]);
    expect(parseA1111(text).map((piece) => piece.text)).toEqual(["a"]);
    expect(turnsOf(text.replaceAll("(", "[").replaceAll(")", ":3]"), 5)).toHaveLength(2);
  });
});

describe("a prompt", () => {
  const long = `${"red ".repeat(80)}circle`;

  test("that is plain is cut after 75 tokens, or read in chunks", () => {
    const cut = encoderOf({});
    expect(cut.encoder.prompt(long).ids.length).toBe(77);
    expect(cut.warnings.join()).toContain('left out: "red red red red red circle"');
    const whole = encoderOf({ longPrompts: true });
    const { ids, ids2, weights } = whole.encoder.prompt(long);
    expect([ids.length, ids2.length, weights]).toEqual([154, 154, undefined]);
    expect(whole.warnings).toEqual([]);
    const short = encoderOf({ longPrompts: true }).encoder.prompt("a red circle");
    expect(short).toEqual(encoderOf({}).encoder.prompt("a red circle"));
  });

  test("that is plain and looks weighted is read as text, with a warning", () => {
    const { encoder, warnings } = encoderOf({});
    encoder.prompt("a (red:1.4) circle");
    encoder.prompt("a (red) circle, 4:3 \\(a:1.2\\)");
    expect(warnings).toEqual([
      'The prompt has "(red:1.4)", which is read as text: --prompt-syntax a1111 or comfyui reads \
weights.',
    ]);
  });

  test("may be another one for the second encoder, in as many chunks", () => {
    const { encoder } = encoderOf({ promptSyntax: "a1111" });
    const { ids, ids2, weights, weights2 } = encoder.prompt("(a:1.5)", long);
    expect(ids.subarray(0, 77)).toEqual(encoder.prompt("a").ids);
    expect(ids.subarray(77)).toEqual(encoder.prompt("").ids);
    expect(ids2).toEqual(encoder.prompt(long).ids2);
    expect([weights?.length, weights2]).toEqual([154, undefined]);
    expect(encoder.prompt("a", "")).toEqual(encoder.prompt("a"));
  });

  test("keeps an embedding's vectors in one chunk", () => {
    const text = `${"red ".repeat(70)}(badmood:1.5)`;
    for (const changes of [{ promptSyntax: "a1111" as const }, { longPrompts: true }]) {
      const { encoder } = encoderOf(changes, text);
      const { ids } = encoder.prompt(text);
      const first = ids.findIndex((id) => id >= model.clip!.vocabSize);
      expect(first).toBeGreaterThanOrEqual(78);
      const vectors = ids.subarray(first, first + promptNotes.vectors.badmood!);
      expect([...vectors].every((id) => id >= model.clip!.vocabSize)).toBe(true);
    }
  });

  test("without end is refused", async () => {
    const { encoder } = encoderOf({ longPrompts: true });
    expect(await refusal(() => encoder.prompt("red ".repeat(5000)), "bad-option")).toBe(
      "The prompt has 67 chunks of 75 tokens: 64 are possible.",
    );
  });

  test("with a weight beyond all numbers is refused", async () => {
    const { encoder } = encoderOf({ promptSyntax: "comfyui" });
    expect(await refusal(() => encoder.prompt("(a:1e39)"), "bad-option")).toBe(
      'The prompt has "a" with a weight of 1e+39.',
    );
  });
});

describe("prompts that change on the way", () => {
  const tokensOf = (prompt: string, more: object = {}) => {
    const request = { prompt, stepCount: 10, promptSyntax: "a1111" as const, ...more };
    return planRequest(request, model, 1, asFlag).batches[0]!.images[0]!.tokens;
  };
  const own = (prompt: string) => tokensOf(prompt).prompts[0]!.ids;

  test("give each step its own, and one step more to the first, as A1111 does", () => {
    expect(turnsOf("[a:b:0.4]", 10)).toEqual([
      { text: "a", end: 4 },
      { text: "b", end: 10 },
    ]);
    expect([0, 4, 5, 9].map((step) => turnAt(turnsOf("[a:b:0.4]", 10), step))).toEqual([
      0, 0, 1, 1,
    ]);
    const { prompts, negatives, stepSets } = tokensOf("a [b:c:0.4]");
    expect(stepSets).toEqual([0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
    expect(prompts.map(({ ids }) => ids)).toEqual([own("a b"), own("a c")]);
    expect(negatives).toEqual([null, null]);
    expect(tokensOf("[a|b]").stepSets).toEqual([0, 0, 1, 0, 1, 0, 1, 0, 1, 0]);
  });

  test("and negative prompts that do have a set for each pair, in which each counts once", () => {
    const tokens = tokensOf("[a:b:0.4]", { negativePrompt: "[c:d:0.6]", guidanceScale: 5 });
    expect(tokens.stepSets).toEqual([0, 0, 0, 0, 0, 1, 1, 2, 2, 2]);
    expect(tokens.prompts.map(({ repeatCount }) => repeatCount)).toEqual([1, 1, 0]);
    expect(tokens.negatives.map((pair) => pair?.repeatCount)).toEqual([1, 0, 1]);
    // The last entry counts in the mean of A1111, but no step reads it.
    expect(tokensOf("[a:b:9]").prompts.map(({ repeatCount }) => repeatCount)).toEqual([1, 1]);
    expect(tokensOf("[a|b]").prompts.map(({ repeatCount }) => repeatCount)).toEqual([5, 5]);
  });

  test("have as many chunks in every step", () => {
    const { prompts } = tokensOf(`[${"red ".repeat(80)}:(b:1.2):0.5]`);
    expect(prompts.map(({ ids, weights }) => [ids.length, weights?.length])).toEqual([
      [154, undefined],
      [154, 154],
    ]);
    expect(prompts[1]!.ids.subarray(77)).toEqual(own(""));
  });

  test("are text in other syntaxes, and at most so many", async () => {
    expect(tokensOf("[a|b]", { promptSyntax: "comfyui" }).stepSets).toBeNull();
    expect(tokensOf("a AND b", { promptSyntax: "plain" }).stepSets).toBeNull();
    const many = Array.from({ length: 70 }, (_, index) => `a${"b".repeat(index)}`).join("|");
    const sentence = await refusal(() => tokensOf(`[${many}]`, { stepCount: 70 }), "bad-option");
    expect(sentence).toContain("different ones on the way: 64 are possible.");
  });
});

describe("settings", () => {
  const plan = (request: object) => planRequest({ prompt: "a", ...request }, model, 1, asFlag);
  const tokensOf = (request: object) => plan(request).batches[0]!.images[0]!.tokens;

  test("an empty negative prompt is zeros or encoded", () => {
    const isZeros = (request: object) => tokensOf(request).negatives[0] === null;
    expect([isZeros({}), isZeros({ negativePrompt: "" })]).toEqual([true, false]);
    expect(isZeros({ negativePrompt: "", emptyNegative: "zeros" })).toBe(true);
    expect(isZeros({ negativePrompt: "a", emptyNegative: "zeros" })).toBe(false);
    expect(isZeros({ emptyNegative: "encode" })).toBe(false);
    expect(plan({ negativePrompt2: "b" }).warnings).toEqual([
      "--negative-prompt-2 is not used: the negative prompt is zeros.",
    ]);
  });

  test("layers are skipped as each tool does", async () => {
    const skipped = (request: object) => {
      const { prompts, negatives } = tokensOf({ negativePrompt: "b", ...request });
      return [prompts[0]?.clipSkip ?? 0, negatives[0]?.clipSkip ?? 0];
    };
    expect(skipped({})).toEqual([0, 0]);
    expect(skipped({ clipSkip: 1 })).toEqual([0, 0]);
    expect(skipped({ clipSkip: 3 })).toEqual([1, 0]);
    expect(skipped({ clipSkip: 3, promptSyntax: "comfyui" })).toEqual([1, 1]);
    expect(skipped({ clipSkip: 3, promptSyntax: "a1111" })).toEqual([0, 0]);
    expect(plan({ clipSkip: 3, promptSyntax: "a1111" }).warnings).toEqual([
      "--clip-skip is not used: A1111 ignores it for SDXL.",
    ]);
    expect(await refusal(() => plan({ clipSkip: 9 }), "bad-option")).toContain(
      "--clip-skip must be at most",
    );
  });

  test("the empty prompt is there where weights interpolate from it", () => {
    expect(plan({ promptSyntax: "comfyui" }).emptyTokens).toBeNull();
    expect(plan({ prompt: "(a)", promptSyntax: "a1111" }).emptyTokens).toBeNull();
    const { ids } = plan({ prompt: "(a)", promptSyntax: "comfyui" }).emptyTokens!;
    expect(ids).toEqual(model.tokenizer!.encode("").ids);
  });

  test("prompts of all images are compared between processes", () => {
    const compared = (...prompt: string[]) => {
      const seeds = prompt.map((_, index) => BigInt(index));
      const facts = { version: "1", model, rankCount: 1, seedIsRandom: true };
      return settingsOf(plan({ prompt, seeds }), { ...facts, gpu: {} as GpuOptions });
    };
    expect(compared("a", "a")["--prompt"]).toBe("a");
    expect(compared("a", "b")["--prompt"]).not.toBe(compared("a", "c")["--prompt"]!);
    expect(compared("a")["--negative-prompt"]).toBe("none");
  });

  test("prompts of different lengths are in batches of their own", () => {
    const long = "red ".repeat(100);
    const request = { prompt: ["a", "b", long, long, "c"], seeds: [1n, 2n, 3n, 4n, 5n] };
    const { batches } = plan({ ...request, batchSize: 4, longPrompts: true });
    expect(batches.map(({ images }) => images.length)).toEqual([2, 2, 1]);
  });
});
