/**
 * Models unlike SDXL base on the emulated driver, in f16: UNets with the blocks of distilled models
 * against what diffusers gives in f32, a first latent of the deviation 4096 against the CPU, and a
 * checkpoint in one file against its folder.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { goldenModel } from "../../src/bench/support/golden-model.ts";
import { readSafetensors, tensorOf } from "../../src/bench/support/safetensors.ts";
import { writeSingleFile } from "../../src/bench/support/single-file.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { nativeModelOf } from "../../src/models/native-model.ts";
import { openSingleFile } from "../../src/models/single-file.ts";
import { ModelParts, randomNormal } from "../../src/native/testing.ts";
import { relativeL2 } from "../support/compare.ts";
import { distilledModel, removeDistilled } from "../support/distilled.ts";
import { drawLatents } from "../support/draw.ts";
import { emulated } from "../support/emulator.ts";

// Emulated threads are slow, and the cores may be busy.
setDefaultTimeout(240_000);
afterAll(removeDistilled);

const fixtures = join(import.meta.dir, "../fixtures");
const reference = readSafetensors(join(fixtures, "model-shapes.safetensors"));

describe("distilled models", () => {
  // Depths of their own and one resnet in the middle; no mid block.
  test.each(["ssd_1b", "koala_700m"] as const)("%s within 5e-3", async (name) => {
    const model = await distilledModel(name);
    const parts = await ModelParts.open(nativeModelOf(model), { gpu: emulated() });
    try {
      const { output } = await parts.noisePrediction({
        sample: randomNormal(1n, 1, 4 * 64),
        batch: 1,
        latentRows: 8,
        latentWidth: 8,
        timestep: 500,
        promptEmbeds: randomNormal(2n, 1, 77 * model.unet.crossAttentionDim),
        pooled: randomNormal(3n, 1, model.clip2.projectionSize),
        timeIds: new Float32Array([512, 512, 0, 0, 2.5, 0]),
      });
      expect(relativeL2(output, tensorOf(reference, name).data)).toBeLessThanOrEqual(5e-3);
    } finally {
      await parts.close();
    }
  });
});

test("zero terminal SNR in twelve steps within 5e-3 of the CPU", async () => {
  const golden = await openModelFolder(join(fixtures, "golden/model"));
  const training = { predictionType: "v_prediction", rescaleBetasZeroSnr: true } as const;
  const scheduler = { ...golden.scheduler, ...training, timestepSpacing: "trailing" as const };
  const model = { ...golden, scheduler };
  const work = { model, width: 32, height: 64, stepCount: 12, splitBatch: false };
  const ours = await drawLatents({ ...work, gpu: emulated() });
  expect(relativeL2(ours, await drawLatents(work))).toBeLessThanOrEqual(5e-3);
});

test("a checkpoint in one file gives the bits of its folder", async () => {
  const golden = await openModelFolder(goldenModel);
  const folder = mkdtempSync(join(tmpdir(), "basedxl-single-cuda-"));
  try {
    const path = join(folder, "golden.safetensors");
    writeSingleFile(golden, path);
    const single = await openSingleFile(path, { config: goldenModel });
    // On upload the text projection is transposed; the thirds of in_proj are copied as they lie.
    const work = { width: 32, height: 32, stepCount: 1, splitBatch: false, gpu: emulated() };
    const ours = await drawLatents({ ...work, model: single });
    expect(ours).toEqual(await drawLatents({ ...work, model: golden }));
  } finally {
    rmSync(folder, { recursive: true });
  }
});
