/**
 * Prompts combined by AND and the guidance window against diffusers' model and samplers, with
 * A1111's rules: one rank, and ranks that share the work in full_sync.
 */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { readSafetensors, tensorOf } from "../../src/bench/support/safetensors.ts";
import { type GenerateRequest, Pipeline } from "../../src/pipeline.ts";
import type { Scheduler } from "../../src/settings/names.ts";
import notes from "../fixtures/combined.json";
import { relativeL2 } from "../support/compare.ts";
import { measured } from "../support/measured.ts";

const fixtures = join(import.meta.dir, "../fixtures");
const tensors = readSafetensors(join(fixtures, "combined.safetensors"));
const model = join(fixtures, "golden/model");

const runs = notes.runs.flatMap((run) =>
  notes.samplers.map((scheduler) => ({ ...run, scheduler: scheduler as Scheduler })),
);

function requestOf(run: (typeof runs)[number]): GenerateRequest {
  const [start = 0, end = 0] = run.window;
  return {
    // Without a weight at its end it is one prompt.
    prompt: run.combines ? notes.prompt : "a red circle",
    promptSyntax: "a1111",
    negativePrompt: notes.negative,
    width: notes.width,
    height: notes.height,
    stepCount: notes.steps,
    scheduler: run.scheduler,
    guidanceScale: notes.scale,
    guidanceRescale: notes.rescale,
    // A quarter of a step more: products of fractions may be a little less than whole.
    guidanceStart: (start + 0.25) / notes.steps,
    guidanceEnd: Math.min(1, (end + 0.25) / notes.steps),
    seeds: [BigInt(notes.seed)],
    wantLatents: true,
  };
}

async function latentsOf(request: GenerateRequest, rankCount: number): Promise<Float32Array> {
  const devices = { device: "cpu", rankCount } as const;
  await using pipeline = await Pipeline.open({ model, devices, first: request });
  return (await pipeline.generate(request)).latents!;
}

describe.each(runs)("$name with $scheduler", (run) => {
  const request = requestOf(run);

  test("latents within 1e-4 of diffusers", async () => {
    const { data } = tensorOf(tensors, `${run.name}.${run.scheduler}`);
    const error = relativeL2(await latentsOf(request, 1), data);
    expect(measured(`latents of ${run.name}, ${run.scheduler}`, error, 1e-4)).toBeLessThanOrEqual(
      1e-4,
    );
  });
});

test.each([2, 3, 4, 8])("%d ranks in full_sync as one, several images", async (rankCount) => {
  const run = runs.find(({ name }) => name === "both")!;
  const tall = { height: 256, seeds: [1n, 2n], batchSize: 2, syncMode: "full_sync" } as const;
  const request: GenerateRequest = { ...requestOf(run), ...tall };
  const one = await latentsOf(request, 1);
  expect(relativeL2(await latentsOf(request, rankCount), one)).toBeLessThanOrEqual(1e-5);
});
