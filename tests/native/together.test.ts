/**
 * A LoRA, a ControlNet and an IP-Adapter at once on a model for inpainting, against diffusers
 * (tests/fixtures/together.*, made by tests/reference/make_together.py); on several ranks, in
 * batches, with reused features and stale patches.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { everyNth } from "../../src/bench/support/references.ts";
import { readSafetensors } from "../../src/bench/support/safetensors.ts";
import type { GenerateRequest } from "../../src/pipeline.ts";
import { relativeL2 } from "../support/compare.ts";
import { controlHint } from "../support/control-hint.ts";
import { controlFolder, removeControls } from "../support/control-networks.ts";
import { formulaImage, formulaMask } from "../support/formula-input.ts";
import { inpaintingModel } from "../support/inpainting-model.ts";
import { ipImage, removeIpAdapters, writeIpAdapters } from "../support/ip-adapter-files.ts";
import { KeptPipelines } from "../support/kept-pipelines.ts";
import { measured } from "../support/measured.ts";
import { removeCopies } from "../support/model-copy.ts";
import { writeReferenceAdapters } from "../support/reference-adapters.ts";

setDefaultTimeout(60_000);

const fixtures = join(import.meta.dir, "../fixtures");
const notes = JSON.parse(readFileSync(join(fixtures, "together.json"), "utf8"));
const expected = readSafetensors(join(fixtures, "together.safetensors")).get("latents")!.data;
const model = await inpaintingModel();
const pipelines = new KeptPipelines();
afterAll(async () => {
  await pipelines.close();
  removeControls();
  removeIpAdapters();
  removeCopies();
});

const request: GenerateRequest = {
  ...{ prompt: "a red circle", negativePrompt: "blurry", guidanceScale: 5, scheduler: "euler" },
  ...{ image: formulaImage, mask: formulaMask, strength: notes.strength, width: 64, height: 64 },
  ...{ stepCount: notes.steps, seeds: [BigInt(notes.seed)] },
  loras: [{ file: writeReferenceAdapters().get(notes.lora)!, scale: notes.loraScale }],
  ...{ controlnet: [controlFolder("plain")], controlImage: [controlHint(64, 64)] },
  controlScale: [notes.controlScale],
  ...{ ipAdapter: [writeIpAdapters().plain], ipImage: [ipImage(0)], ipScale: [notes.ipScale] },
  ...{ wantLatents: true, syncMode: "full_sync" },
};

async function latentsOf(more: GenerateRequest = {}, rankCount = 1): Promise<Float32Array> {
  const asked = { ...request, ...more };
  const devices = { device: "cpu", rankCount } as const;
  const pipeline = await pipelines.of(rankCount, { model, devices, first: asked });
  return (await pipeline.generate(asked)).latents!;
}

test("equal to diffusers", async () => {
  const error = relativeL2(everyNth(await latentsOf(), notes.stride), expected);
  expect(measured("together", error, 1e-4)).toBeLessThan(1e-4);
});

test("an image of a batch is that alone", async () => {
  const together = await latentsOf({ seeds: [1n, 2n], batchSize: 2 });
  const alone = await latentsOf({ seeds: [2n] });
  expect(relativeL2(together.slice(alone.length), alone)).toBeLessThan(1e-5);
});

describe.each([2, 3])("%d ranks", (rankCount) => {
  const tall = { width: 32, height: 128, resize: "stretch" } as const;

  test("make the image of one", async () => {
    expect(relativeL2(await latentsOf(tall, rankCount), await latentsOf(tall))).toBeLessThan(1e-5);
  });

  test.each(["balanced", "fast"] as const)("reuse what one does with %s", async (quality) => {
    const more = { ...tall, quality, stepCount: 10 };
    const one = await latentsOf(more);
    expect(relativeL2(await latentsOf(more, rankCount), one)).toBeLessThan(1e-5);
    expect(relativeL2(one, await latentsOf({ ...tall, stepCount: 10 }))).toBeGreaterThan(1e-4);
  });

  test("make nearly that image with patches a step old", async () => {
    const stale = {
      ...tall,
      stepCount: 8,
      syncMode: "corrected_async_gn",
      warmupSteps: 1,
    } as const;
    const one = await latentsOf(stale);
    const error = relativeL2(await latentsOf(stale, rankCount), one);
    expect(error).toBeGreaterThan(0);
    expect(error).toBeLessThan(0.5);
  });
});
