/**
 * Weights, chunks and skipped layers in the text encoders, against the code of A1111, ComfyUI and
 * diffusers; and images whose prompts have several chunks.
 */

import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { relativeL2From } from "../../src/bench/support/references.ts";
import { readSafetensors } from "../../src/bench/support/safetensors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { nativeModelOf } from "../../src/models/native-model.ts";
import type { Emphasis } from "../../src/native/abi.ts";
import type { TokenPair } from "../../src/native/handle.ts";
import { ModelParts } from "../../src/native/testing.ts";
import { defaultRules, PromptEncoder } from "../../src/pipeline/prompts.ts";
import { planRequest } from "../../src/pipeline/request.ts";
import { drawLatents, latentsOf, requestOf, type Work, withSession } from "../support/draw.ts";
import { measured } from "../support/measured.ts";
import { promptNotes } from "../support/prompt-notes.ts";
import { refusal } from "../support/refusal.ts";

const fixtures = join(import.meta.dir, "../fixtures");
const recorded = readSafetensors(join(fixtures, "prompts.safetensors"));
const model = await openModelFolder(join(fixtures, "golden/model"));

function encoderOf(changes: Partial<typeof defaultRules>) {
  return new PromptEncoder(model, () => {}, { rules: { ...defaultRules, ...changes } });
}

async function errorsOf(
  name: string,
  tokens: TokenPair | TokenPair[],
  how: { emphasis?: keyof typeof Emphasis; empty?: TokenPair } = {},
) {
  const parts = await ModelParts.open(nativeModelOf(model), { threadCount: 1 });
  try {
    const { promptEmbeds, pooled } = await parts.promptEmbeds(tokens, undefined, how);
    const states = relativeL2From(recorded, `${name}.prompt_embeds`, promptEmbeds);
    // Weights leave it alone, which one prompt shows.
    const hasPooled = recorded.has(`${name}.pooled`);
    const pools = hasPooled ? relativeL2From(recorded, `${name}.pooled`, pooled) : 0;
    return measured(`states of ${name}`, Math.max(states, pools), 1e-5);
  } finally {
    await parts.close();
  }
}

describe("states of the text encoders", () => {
  const cases = Object.entries(promptNotes.modes).flatMap(([name, modes]) =>
    modes.filter(() => name !== "turns").map((mode) => [mode, name] as const),
  );
  test.each(cases)("weights, %s: %s", async (mode, name) => {
    const emphasis = mode as keyof typeof Emphasis;
    const isComfyui = emphasis === "interpolate";
    const encoder = encoderOf({ promptSyntax: isComfyui ? "comfyui" : "a1111" });
    const how = { emphasis, ...(isComfyui && { empty: encoder.empty() }) };
    const error = await errorsOf(`${mode}.${name}`, encoder.prompt(promptNotes.states[name]!), how);
    expect(error).toBeLessThanOrEqual(1e-5);
  });

  test("weights of prompts that take turns, which have one mean", async () => {
    const { prompts } = planRequest(
      { prompt: promptNotes.states.turns!, promptSyntax: "a1111", stepCount: promptNotes.steps },
      model,
      1,
    ).batches[0]!.images[0]!.tokens;
    expect(prompts.length).toBe(2);
    expect(await errorsOf("original.turns", prompts)).toBeLessThanOrEqual(1e-5);
  });

  test("a skipped layer, as diffusers' clip_skip", async () => {
    const tokens = encoderOf({ clipSkip: 3 }).prompt("a red circle");
    expect(await errorsOf("clip_skip", tokens)).toBeLessThanOrEqual(1e-5);
  });

  test("another prompt for the second encoder", async () => {
    const tokens = encoderOf({}).prompt("a red circle", "a blue square");
    expect(await errorsOf("second", tokens)).toBeLessThanOrEqual(1e-5);
  });
});

test("prompts that do not fit together are refused by the library", async () => {
  const work: Work = { model, width: 64, height: 64, stepCount: 1, threadCount: 1 };
  const request = requestOf(work);
  const one = request.prompt as TokenPair;
  const double = (ids: Int32Array) => new Int32Array([...ids, ...ids]);
  const two = { ...one, ids: double(one.ids), ids2: double(one.ids2) };
  const many = { ...one, ids: new Int32Array(77 * 65), ids2: new Int32Array(77 * 65) };
  const short = new Float32Array(76).fill(1);
  const infinite = new Float32Array(77).fill(Number.POSITIVE_INFINITY);
  const wrong: [string, Partial<typeof request>][] = [
    ["prompts of different lengths", { prompt: [one, two], stepSets: [0] }],
    ["tokens long", { prompt: { ...one, ids: double(one.ids) } }],
    ["tokens long", { prompt: many }],
    ["weights that are not one per token", { prompt: { ...one, weights: short } }],
    ["a weight of inf", { prompt: { ...one, weights2: infinite } }],
    ["layers fewer", { prompt: { ...one, clipSkip: 12 } }],
    ["sets of prompts that no step names", { prompt: [one, one] }],
    ["sets that are not one per step", { prompt: [one, one], stepSets: [0, 1] }],
    ["set 2 of 2", { prompt: [one, one], stepSets: [2] }],
    ["prompts that are not one per image", { emphasis: "interpolate" }],
    ["an empty prompt", { empty: one }],
  ];
  await withSession(work, async (session) => {
    for (const [sentence, changes] of wrong) {
      const refused = () => session.image({ ...request, ...changes });
      expect(await refusal(refused, "internal")).toContain(sentence);
    }
    expect((await session.image(request)).images.length).toBe(1);
  });
});

describe("images of prompts in chunks", () => {
  const long = "a (red:1.3) circle, above [a] blue square, ".repeat(8);
  const base: Work = {
    model,
    width: 64,
    height: 64,
    prompt: long,
    negative: "(blurry:1.2)",
    rules: { promptSyntax: "a1111" },
    threadCount: 2,
  };

  test.each(["a1111", "comfyui", "plain"] as const)(
    "are the same on one rank, which has both branches, and on more: %s",
    async (promptSyntax) => {
      const work = { ...base, rules: { promptSyntax, longPrompts: true } };
      const alone = await drawLatents(work);
      expect(await drawLatents({ ...work, rankCount: 2 })).toEqual(alone);
      expect(await drawLatents({ ...work, rules: {} })).not.toEqual(alone);
    },
  );

  test("are the same alone and in a batch", async () => {
    const work = { ...base, seeds: [5n, 6n, 7n] };
    const together = await drawLatents(work);
    const length = together.length / 3;
    for (const [index, seed] of work.seeds.entries()) {
      const own = together.subarray(index * length, (index + 1) * length);
      expect(await drawLatents({ ...work, seeds: [seed] })).toEqual(own);
    }
  });

  test("read in each step the prompts of its set", async () => {
    const work = { ...base, rules: {}, seeds: [5n, 6n], negative: "blurry" };
    const first = requestOf({ ...work, prompt: "a red circle" });
    const second = requestOf({ ...work, prompt: "a blue square" });
    const [a, b] = [first.prompt, second.prompt] as [TokenPair, TokenPair];
    const negative = first.negative as TokenPair;
    for (const rankCount of [1, 2]) {
      await withSession({ ...work, rankCount }, async (session) => {
        const inSets = async (...stepSets: number[]) => {
          const [prompt, all] = [[a, b, a, b], Array<TokenPair>(4).fill(negative)];
          return latentsOf(await session.image({ ...first, prompt, negative: all, stepSets }));
        };
        const alone = [latentsOf(await session.image(first))];
        alone.push(latentsOf(await session.image(second)));
        expect(await inSets(0, 0, 0)).toEqual(alone[0]!);
        expect(await inSets(1, 1, 1)).toEqual(alone[1]!);
        const mixed = await inSets(0, 1, 0);
        for (const other of alone) expect(mixed).not.toEqual(other);
      });
    }
  });

  test("share patches as others do", async () => {
    const work = { ...base, stepCount: 2 };
    const alone = await drawLatents(work);
    const shared = await drawLatents({ ...work, rankCount: 2, splitBatch: false });
    const norm = (values: Float32Array) => Math.hypot(...values);
    const difference = shared.map((value, at) => value - alone[at]!);
    expect(norm(difference) / norm(alone)).toBeLessThanOrEqual(1e-5);
  });
});
