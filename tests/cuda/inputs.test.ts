/**
 * Images that start from another on the emulated driver, with a mask that the UNet reads and one
 * that it does not: the ranks' moments reach each other, and the mask's latents all branches.
 */
import { afterAll, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import type { GenerateRequest } from "../../src/pipeline.ts";
import { expectAsOnCpu } from "../support/emulated-latents.ts";
import { inpaintingModel } from "../support/inpainting-model.ts";
import { removeCopies } from "../support/model-copy.ts";

// Emulated threads are slow, and the cores may be busy.
setDefaultTimeout(240_000);
afterAll(removeCopies);

const size = { width: 32, height: 64 };
const image = {
  ...size,
  pixels: Uint8Array.from({ length: 32 * 64 * 3 }, (_, i) => (7 * i) % 256),
};
const mask = {
  ...size,
  pixels: Uint8Array.from({ length: 32 * 64 }, (_, i) => (i > 900 ? 255 : 0)),
};
const golden = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));

test.each([
  { channels: 4, compat: "diffusers", model: golden },
  // What the mask keeps is mixed into what this reads and predicts, too.
  { channels: 9, compat: "comfyui", model: await inpaintingModel() },
] as const)("$channels channels: as on the CPU, with graphs and without", async (each) => {
  const { compat, model } = each;
  const request: GenerateRequest = {
    ...{
      compat,
      stepRng: "cpu",
      prompt: "a red circle",
      seeds: [5n],
      stepCount: 3,
      strength: 0.7,
      image,
      mask,
    },
    ...{ guidanceScale: 1, syncMode: "full_sync", wantLatents: true },
  };
  await expectAsOnCpu(model, request);
});
