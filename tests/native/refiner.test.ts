/**
 * Runs from latents, and by a base model and a refiner, against diffusers
 * (tests/fixtures/refiner.*, made by tests/reference/make_refiner.py); in batches and on several
 * ranks.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { everyNth } from "../../src/bench/support/references.ts";
import { readSafetensors } from "../../src/bench/support/safetensors.ts";
import { type GenerateRequest, type GenerateResult, Pipeline } from "../../src/pipeline.ts";
import { relativeL2 } from "../support/compare.ts";
import { removeCopies } from "../support/model-copy.ts";
import { refinerFolder } from "../support/refiner-model.ts";

setDefaultTimeout(60_000);

interface Notes {
  side: number;
  seed: number;
  steps: number;
  denoisingEnd: number;
  stride: number;
  runs: { name: string; what: "latents" | "ensemble" | "again"; scheduler: string }[];
}

const fixtures = join(import.meta.dir, "../fixtures");
// Those of every sampler may be compared by hand.
const recorded = process.env.REFINER_RUNS ?? join(fixtures, "refiner");
const notes: Notes = JSON.parse(readFileSync(`${recorded}.json`, "utf8"));
const tensors = readSafetensors(`${recorded}.safetensors`);
const folders = { base: join(fixtures, "golden/model"), refiner: refinerFolder() };
const shape = [1, 4, notes.side / 8, notes.side / 8] as const;
const values = Float32Array.from(
  { length: shape[1] * shape[2] * shape[3] },
  (_, i) => ((i * 37) % 101) / 50 - 1,
);
const usual: GenerateRequest = {
  ...{ prompt: "a red circle", negativePrompt: "blurry", guidanceScale: 5 },
  ...{ wantLatents: true, wantImages: false, syncMode: "full_sync" },
  ...{ stepCount: notes.steps, seeds: [BigInt(notes.seed)] },
};
const size = { width: notes.side, height: notes.side };

const pipelines = new Map<string, Promise<Pipeline>>();
afterAll(async () => {
  for (const pipeline of pipelines.values()) await (await pipeline).close();
  removeCopies();
});

async function run(model: keyof typeof folders, rankCount: number, request: GenerateRequest) {
  const key = `${model} ${rankCount}`;
  const first = { ...usual, ...request };
  const open = () =>
    Pipeline.open({ model: folders[model], devices: { device: "cpu", rankCount }, first });
  if (!pipelines.has(key)) pipelines.set(key, open());
  return await (await pipelines.get(key)!).generate(first);
}

const latentsOf = ({ latents, latentShape, noiseCount }: GenerateResult) => ({
  ...{ values: latents!, shape: latentShape, noiseCount },
});

type Run = Omit<Notes["runs"][number], "name">;

async function made({ what, scheduler }: Run, rankCount: number, more: GenerateRequest = {}) {
  const request = { scheduler: scheduler as "euler", ...more };
  if (what === "latents") {
    return await run("base", rankCount, { ...request, latents: { values, shape }, strength: 0.6 });
  }
  const denoisingEnd = what === "ensemble" ? notes.denoisingEnd : 1;
  const base = await run("base", rankCount, { ...size, ...request, denoisingEnd });
  expect(base.images).toEqual([]);
  const { width: _, height: __, ...others } = request as GenerateRequest;
  const refined = { ...others, latents: latentsOf(base) };
  const how = what === "ensemble" ? { denoisingStart: denoisingEnd } : { strength: 0.3 };
  return await run("refiner", rankCount, { ...refined, ...how });
}

describe("equal to diffusers", () => {
  test.each(notes.runs)("$name", async (each) => {
    const { latents } = await made(each, 1);
    const expected = tensors.get(each.name)!.data as Float32Array;
    expect(relativeL2(everyNth(latents!, notes.stride), expected)).toBeLessThan(1e-5);
  });
});

describe.each([2, 3, 4])("%d ranks", (rankCount) => {
  test("a refiner goes on as with one", async () => {
    const request = { width: 32, height: 128, stepCount: 3, guidanceScale: 1 };
    const how = { what: "ensemble", scheduler: "euler_a" } as const;
    const one = await made(how, 1, request);
    const several = await made(how, rankCount, request);
    expect(relativeL2(several.latents!, one.latents!)).toBeLessThan(1e-5);
  });
});

test("an image of a batch is that alone", async () => {
  const how = { what: "ensemble", scheduler: "euler_a" } as const;
  const request = { stepCount: 3, batchSize: 2 };
  const together = await made(how, 1, { ...request, seeds: [1n, 2n] });
  const alone = await made(how, 1, { ...request, seeds: [2n] });
  const own = together.latents!.slice(together.latents!.length / 2);
  expect(relativeL2(own, alone.latents!)).toBeLessThan(1e-5);
});

describe("refused in a sentence", () => {
  const latents = { values, shape };
  test.each([
    [{ latents: { values: values.slice(1), shape } }, "latents must have 4 channels"],
    [{ latents: { values: values.map(() => Number.NaN), shape } }, "not finite"],
    [{ latents, width: 128 }, "latents are of an image of 64x64"],
    [{ latents, seeds: [1n], image: { ...size, pixels: new Uint8Array(12288) } }, "only one"],
    [{ latents, denoisingStart: 1 }, "above 0 and below 1"],
    [{ latents, denoisingStart: 0.999 }, "none of 7 steps is left"],
    [{ denoisingStart: 0.5 }, "needs latents"],
    [{ denoisingEnd: 0 }, "leaves none of the 7 steps"],
    [{ latents, denoisingStart: 0.5, denoisingEnd: 0.4 }, "leaves none"],
    [{ strength: 0.5 }, "strength needs an image"],
    [
      { latents: { values: Float32Array.of(...values, ...values), shape: [2, ...shape.slice(1)] } },
      "latents are of 2 images, but the request has 1",
    ],
  ] as [GenerateRequest, string][])("%#: %s", async (request, sentence) => {
    await expect(run("base", 1, request)).rejects.toThrow(sentence);
  });

  test("a refiner from text alone", async () => {
    await expect(Pipeline.open({ model: folders.refiner, first: usual })).rejects.toThrow(
      "a refiner",
    );
  });
});
