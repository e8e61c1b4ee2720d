/**
 * UNets with the blocks of distilled models on the emulated driver, in f16, against what diffusers
 * gives in f32.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { readSafetensors, tensorOf } from "../../src/bench/support/safetensors.ts";
import { nativeModelOf } from "../../src/models/native-model.ts";
import { ModelParts, randomNormal } from "../../src/native/testing.ts";
import { relativeL2 } from "../support/compare.ts";
import { distilledModel, removeDistilled } from "../support/distilled.ts";
import { emulated } from "../support/emulator.ts";

// Emulated threads are slow, and the cores may be busy.
setDefaultTimeout(240_000);
afterAll(removeDistilled);

const reference = readSafetensors(join(import.meta.dir, "../fixtures/model-shapes.safetensors"));

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
