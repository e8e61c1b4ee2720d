/**
 * Images that start from another against diffusers (tests/fixtures/inputs.*, made by
 * tests/reference/make_inputs.py): img2img, and inpainting with a UNet of four channels and of
 * nine. On several ranks, in batches, and what becomes of the pixels outside the mask.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeRandomLora } from "../../src/bench/support/random-lora.ts";
import { everyNth } from "../../src/bench/support/references.ts";
import { readSafetensors } from "../../src/bench/support/safetensors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import type { Model } from "../../src/models/model.ts";
import type { GenerateRequest } from "../../src/pipeline.ts";
import { relativeL2 } from "../support/compare.ts";
import { formulaImage, formulaMask } from "../support/formula-input.ts";
import { inpaintingModel } from "../support/inpainting-model.ts";
import { KeptPipelines } from "../support/kept-pipelines.ts";
import { removeCopies } from "../support/model-copy.ts";

setDefaultTimeout(60_000);

interface Notes {
  side: number;
  seed: number;
  stride: number;
  runs: { name: string; what: string; scheduler: string; strength: number; steps: number }[];
}

const fixtures = join(import.meta.dir, "../fixtures");
// Those of every sampler may be compared by hand.
const recorded = process.env.INPUT_RUNS ?? join(fixtures, "inputs");
const notes: Notes = JSON.parse(readFileSync(`${recorded}.json`, "utf8"));
const tensors = readSafetensors(`${recorded}.safetensors`);
const { side, stride } = notes;
const size = { width: side, height: side };
const golden = await openModelFolder(join(fixtures, "golden/model"));
const models: Record<string, Model> = {
  image: golden,
  mask: golden,
  nine: await inpaintingModel(),
};

const [image, mask] = [formulaImage, formulaMask];
const usual: GenerateRequest = {
  ...{ prompt: "a red circle", negativePrompt: "blurry", guidanceScale: 5, image },
  ...{ wantLatents: true, syncMode: "full_sync" },
};

/** One for each kind of model and number of ranks. */
const pipelines = new KeptPipelines();
afterAll(async () => {
  await pipelines.close();
  removeCopies();
});

async function run(what: string, rankCount: number, request: GenerateRequest) {
  const first = { ...usual, ...(what !== "image" && { mask }), ...request };
  const devices = { device: "cpu", rankCount } as const;
  const pipeline = await pipelines.of(`${what} ${rankCount}`, {
    model: models[what]!,
    devices,
    first,
  });
  return await pipeline.generate(first);
}

function requestOf({ scheduler, strength, steps }: Notes["runs"][number]): GenerateRequest {
  return {
    ...{ strength, stepCount: steps, seeds: [BigInt(notes.seed)] },
    scheduler: scheduler as "euler",
  };
}

describe("equal to diffusers", () => {
  test.each(notes.runs)("$name", async (each) => {
    const { latents } = await run(each.what, 1, requestOf(each));
    const expected = tensors.get(each.name)!.data as Float32Array;
    expect(relativeL2(everyNth(latents!, stride), expected)).toBeLessThan(1e-5);
  });
});

describe.each([2, 3, 4])("%d ranks", (rankCount) => {
  test.each(["image", "mask", "nine"])("%s is that of one", async (what) => {
    const size = { width: 32, height: 128 };
    const request = { ...size, stepCount: 2, strength: 1, seeds: [5n], guidanceScale: 1 };
    const one = await run(what, 1, request);
    const several = await run(what, rankCount, request);
    expect(relativeL2(several.latents!, one.latents!)).toBeLessThan(1e-5);
  });
});

test("an image of a batch is that alone", async () => {
  const request = { stepCount: 3, strength: 0.7, scheduler: "euler_a" } as const;
  const together = await run("mask", 1, { ...request, seeds: [1n, 2n], batchSize: 2 });
  const alone = await run("mask", 1, { ...request, seeds: [2n] });
  expect(relativeL2(together.latents!.slice(256), alone.latents!)).toBeLessThan(1e-5);
});

test("a LoRA changes images that start from another, on any number of ranks", async () => {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-inputs-"));
  const lora = join(folder, "random.safetensors");
  try {
    writeRandomLora(lora, golden, /attn/);
    const request = { stepCount: 3, strength: 0.7, seeds: [5n], width: 32, height: 128 } as const;
    const plain = await run("mask", 1, request);
    const loras = [{ file: lora, scale: 1 }];
    const one = await run("mask", 1, { ...request, loras });
    expect(relativeL2(one.latents!, plain.latents!)).toBeGreaterThan(1e-3);
    const several = await run("mask", 3, { ...request, loras });
    expect(relativeL2(several.latents!, one.latents!)).toBeLessThan(1e-5);
    const without = await run("mask", 1, request);
    expect(without.latents).toEqual(plain.latents);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

describe("pixels outside the mask", () => {
  test.each(["whole", "masked"] as const)("are the old with maskArea %s", async (maskArea) => {
    const padding = maskArea === "masked" ? { maskPadding: 4 } : {};
    const request = { maskArea, ...size, stepCount: 2, seeds: [1n], ...padding };
    const { images } = await run("mask", 1, request);
    const { pixels } = images[0]!;
    const changed = mask.pixels.map((_, i) => Number(pixels[3 * i] !== image.pixels[3 * i]));
    expect(changed.some((is, i) => is === 1 && mask.pixels[i] === 0)).toBe(false);
    expect(changed.filter((is) => is === 1).length).toBeGreaterThan(500);
  });
});
