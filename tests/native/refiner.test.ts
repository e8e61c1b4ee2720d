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
import {
  type GenerateRequest,
  type GenerateResult,
  Pipeline,
  type PipelineOptions,
} from "../../src/pipeline.ts";
import { relativeL2 } from "../support/compare.ts";
import { KeptPipelines } from "../support/kept-pipelines.ts";
import { removeCopies } from "../support/model-copy.ts";
import { refinerFolder } from "../support/refiner-model.ts";

setDefaultTimeout(60_000);

interface Notes {
  side: number;
  seed: number;
  steps: number;
  denoisingEnd: number;
  stride: number;
  runs: { name: string; what: "latents" | "ensemble" | "again" | "scores"; scheduler: string }[];
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

const pipelines = new KeptPipelines();
afterAll(async () => {
  await pipelines.close();
  removeCopies();
});

type Kind = "base" | "both" | "refiner";

function pipelineOf(model: Kind, rankCount: number, first: GenerateRequest): Promise<Pipeline> {
  const refiner = model === "both" ? folders.refiner : undefined;
  const devices = { device: "cpu", rankCount } as const;
  const main = model === "refiner" ? folders.refiner : folders.base;
  return pipelines.of(`${model} ${rankCount}`, { model: main, refiner, devices, first });
}

async function run(
  model: Kind,
  rankCount: number,
  request: GenerateRequest,
): Promise<GenerateResult> {
  const first = { ...usual, ...request };
  return await (await pipelineOf(model, rankCount, first)).generate(first);
}

type Run = Omit<Notes["runs"][number], "name">;

async function made({ what, scheduler }: Run, rankCount: number, more: GenerateRequest = {}) {
  const request = { scheduler: scheduler as "euler", ...more };
  const again = { ...request, latents: { values, shape }, strength: 0.6 };
  if (what === "latents") return await run("base", rankCount, again);
  if (what === "scores") {
    const scores = { aestheticScore: 9, negativeAestheticScore: 1.5 };
    return await run("refiner", rankCount, { ...again, ...scores });
  }
  const denoisingEnd = what === "ensemble" ? notes.denoisingEnd : 1;
  return await run("both", rankCount, { ...size, ...request, denoisingEnd });
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

test("images, previews and steps are those of one job", async () => {
  const request = { ...usual, ...size, denoisingEnd: 0.6, wantImages: true, wantLatents: false };
  const pipeline = await pipelineOf("both", 1, request);
  const steps: string[] = [];
  const kinds: string[] = [];
  const { images, latents, timings, warnings } = await pipeline.generate(request, {
    previewSteps: 1,
    onEvent: (event) => {
      if (event.type !== "progress") kinds.push(event.type);
      else if (event.stage === "denoise") steps.push(`${event.stepIndex}/${event.stepCount}`);
    },
  });
  expect([images.length, latents, warnings]).toEqual([1, null, []]);
  expect(timings.stepMs).toHaveLength(notes.steps);
  expect(kinds[0]).toBe("start");
  expect(kinds.filter((kind) => kind === "start" || kind === "image")).toHaveLength(2);
  expect(new Set(steps.map((text) => text.split("/")[1]))).toEqual(new Set(["7"]));
});

test("what a mask keeps stays through both models", async () => {
  const count = size.width * size.height;
  const image = { ...size, pixels: new Uint8Array(3 * count).map((_, i) => (i * 7) % 256) };
  const mask = { ...size, pixels: new Uint8Array(count).fill(255, count / 2) };
  const more = { image, mask, denoisingEnd: 0.6, wantImages: true, wantLatents: false };
  const { images } = await run("both", 1, { ...usual, ...more });
  const { pixels } = images[0]!;
  expect(pixels.slice(0, (3 * count) / 2)).toEqual(image.pixels.slice(0, (3 * count) / 2));
  expect(pixels.slice((3 * count) / 2)).not.toEqual(image.pixels.slice((3 * count) / 2));
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
    [{ denoisingEnd: 0.5, wantImages: true }, "denoisingEnd needs refiner"],
    [{ aestheticScore: 7 }, "aestheticScore is read by SDXL's refiner alone"],
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
    const open = Pipeline.open({ model: folders.refiner, first: usual });
    await expect(open).rejects.toThrow("a refiner");
  });

  test.each([
    [{ denoisingEnd: 0.999 }, {}, "none of 7 steps is left"],
    [{ stepCount: 2 }, {}, "strength 0.3 of 2 steps is none"],
    [{}, { refiner: join(fixtures, "none") }, "none"],
  ] as [GenerateRequest, PipelineOptions, string][])(
    "%#: %s %s",
    async (more, options, sentence) => {
      const first = { ...usual, ...size, ...more };
      const { base: model, refiner } = folders;
      const open = Pipeline.open({ model, refiner, devices: { device: "cpu" }, first, ...options });
      await expect(open).rejects.toThrow(sentence);
    },
  );
});
