/**
 * Weights, chunks and skipped layers on the emulated GPU: states as on the CPU, and sessions that
 * alternate between prompts of different lengths, whose graphs are captured apart.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { relativeL2From } from "../../src/bench/support/references.ts";
import { readSafetensors } from "../../src/bench/support/safetensors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { nativeModelOf } from "../../src/models/native-model.ts";
import type { Emphasis } from "../../src/native/abi.ts";
import { ModelParts } from "../../src/native/testing.ts";
import { defaultRules, PromptEncoder } from "../../src/pipeline/prompts.ts";
import { drawLatents, latentsOf, requestOf, type Work, withSession } from "../support/draw.ts";
import { emulated } from "../support/emulator.ts";
import { promptNotes } from "../support/prompt-notes.ts";

// Emulated threads are slow, and the cores may be busy.
setDefaultTimeout(240_000);

const fixtures = join(import.meta.dir, "../fixtures");
const recorded = readSafetensors(join(fixtures, "prompts.safetensors"));
const model = await openModelFolder(join(fixtures, "golden/model"));

test.each(["f16", "bf16"] as const)("weights and skipped layers, in %s", async (dtype) => {
  const parts = await ModelParts.open(nativeModelOf(model), { gpu: emulated({ dtype }) });
  // Some ten roundings to 11 bits, or to 8.
  const bar = dtype === "f16" ? 5e-3 : 4e-2;
  try {
    for (const emphasis of promptNotes.modes.weights as (keyof typeof Emphasis)[]) {
      const promptSyntax = emphasis === "interpolate" ? "comfyui" : "a1111";
      const rules = { ...defaultRules, promptSyntax } as const;
      const encoder = new PromptEncoder(model, () => {}, { rules });
      const empty = emphasis === "interpolate" ? encoder.empty() : null;
      const tokens = encoder.prompt(promptNotes.states.weights!);
      const { promptEmbeds } = await parts.promptEmbeds(tokens, undefined, { emphasis, empty });
      const name = `${emphasis}.weights.prompt_embeds`;
      expect(relativeL2From(recorded, name, promptEmbeds)).toBeLessThanOrEqual(bar);
    }
    const rules = { ...defaultRules, clipSkip: 3 };
    const skipped = new PromptEncoder(model, () => {}, { rules }).prompt("a red circle");
    const { promptEmbeds, pooled } = await parts.promptEmbeds(skipped);
    const error = relativeL2From(recorded, "clip_skip.prompt_embeds", promptEmbeds);
    expect(error).toBeLessThanOrEqual(bar);
    expect(relativeL2From(recorded, "clip_skip.pooled", pooled)).toBeLessThanOrEqual(bar);
  } finally {
    await parts.close();
  }
});

test("steps read the prompts of their set, whose graphs are captured apart", async () => {
  const base: Work = { model, width: 64, height: 32, stepCount: 6, gpu: emulated() };
  const first = requestOf({ ...base, prompt: "a red circle" });
  const prompt = [first.prompt, requestOf({ ...base, prompt: "a blue square" }).prompt].flat();
  const negative = [first.negative, first.negative].flat();
  const request = { ...first, prompt, negative, stepSets: [0, 1, 0, 1, 0, 1] };
  const onCpu = await withSession({ ...base, gpu: null }, (session) => session.image(request));
  await withSession(base, async (session) => {
    const fresh = latentsOf(await session.image(request));
    const difference = fresh.map((value, at) => value - latentsOf(onCpu)[at]!);
    const norm = (values: Float32Array) => Math.hypot(...values);
    expect(norm(difference) / norm(fresh)).toBeLessThanOrEqual(5e-3);
    const again = await session.image(request);
    expect(latentsOf(again)).toEqual(fresh);
    expect(again.ranks[0]?.graphsReplayed).toBeGreaterThan(0);
  });
});

test("a session that alternates between lengths: bits of fresh ones, no new graphs", async () => {
  const base: Work = { model, width: 64, height: 32, stepCount: 1, gpu: emulated() };
  const longer = "a (red:1.3) circle, above [a] blue square, ".repeat(8);
  const works: Work[] = [
    { ...base, prompt: "a circle" },
    { ...base, prompt: longer, rules: { promptSyntax: "a1111" } },
    { ...base, prompt: longer, negative: longer, rules: { promptSyntax: "comfyui" } },
  ];
  const fresh = await Promise.all(works.map(drawLatents));
  for (const [index, work] of works.entries()) {
    const onCpu = await drawLatents({ ...work, gpu: null });
    const norm = (values: Float32Array) => Math.hypot(...values);
    const difference = fresh[index]!.map((value, at) => value - onCpu[at]!);
    expect(norm(difference) / norm(onCpu)).toBeLessThanOrEqual(5e-3);
  }
  await withSession(base, async (session) => {
    for (const round of [1, 2, 3]) {
      for (const [index, work] of works.entries()) {
        const image = await session.image(requestOf(work));
        expect(latentsOf(image)).toEqual(fresh[index]!);
        if (round === 3) expect(image.ranks[0]?.graphsCaptured).toBe(0);
        if (round === 3) expect(image.ranks[0]?.graphsReplayed).toBeGreaterThan(0);
      }
    }
  });
});
