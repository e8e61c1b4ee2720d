/**
 * TAESD in 16 bits on the emulated GPU: diffusers' image, and previews between the steps of a run
 * with CUDA graphs.
 */
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { relativeL2From } from "../../src/bench/support/references.ts";
import { readSafetensors } from "../../src/bench/support/safetensors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { nativeModelOf } from "../../src/models/native-model.ts";
import { openTaesd, withTaesd } from "../../src/models/taesd.ts";
import { ModelParts } from "../../src/native/testing.ts";
import { type GenerateRequest, Pipeline, type PreviewEvent } from "../../src/pipeline.ts";
import { emulated } from "../support/emulator.ts";
import { latent, removeTaesds, rows, width, writeTaesd } from "../support/taesd-files.ts";

// Emulated threads are slow, and the cores may be busy.
setDefaultTimeout(240_000);

afterAll(removeTaesds);

const golden = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const taesd = writeTaesd("taesd.safetensors");

test("the image is diffusers' within the rounding of f16", async () => {
  const model = withTaesd(golden, await openTaesd(taesd, golden));
  const parts = await ModelParts.open(nativeModelOf(model), { gpu: emulated() });
  const image = await parts.decodePreview(latent, rows, width);
  await parts.close();
  const record = readSafetensors(join(import.meta.dir, "../fixtures/taesd.safetensors"));
  expect(relativeL2From(record, "image", image)).toBeLessThan(1e-2);
});

test("previews change no image", async () => {
  const request: GenerateRequest = {
    prompt: "a",
    width: 64,
    height: 64,
    stepCount: 3,
    seeds: [1n],
  };
  const devices = { device: "cuda-emulated", rankCount: 2, shareGpu: true } as const;
  await using pipeline = await Pipeline.open({ model: golden, taesd, devices, first: request });
  const plain = await pipeline.generate(request);
  const previews: PreviewEvent[] = [];
  const shown = await pipeline.generate(request, {
    previewSteps: 1,
    onEvent: (event) => void (event.type === "preview" && previews.push(event)),
  });
  expect(shown.images[0]!.pixels).toEqual(plain.images[0]!.pixels);
  expect(previews[0]).toMatchObject({ width: 64, height: 64 });
});
