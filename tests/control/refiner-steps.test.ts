/**
 * How steps are shared between a base model and a refiner: by noise levels as diffusers does, by
 * counts as A1111 and ComfyUI do.
 */
import { expect, test } from "bun:test";
import type { Model } from "../../src/models/model.ts";
import { noImages } from "../../src/pipeline/read-images.ts";
import { planImages } from "../../src/pipeline/refine.ts";
import { requestFiles } from "../../src/pipeline/request-files.ts";
import type { GenerateRequest } from "../../src/pipeline.ts";
import { asFlag } from "../../src/settings/values.ts";
import { fakeModel } from "../support/fake-model.ts";

const vae = { latentChannels: 4, scalingFactor: 0.13 } as Model["vae"];
const model = fakeModel({ vae, nativeSize: { width: 64, height: 64 } });
const latents = { values: new Float32Array(256).fill(0.5), shape: [1, 4, 8, 8] } as const;
// The words of the fake tokenizer have no weights.
const levels = { scheduler: "euler", sigmas: "karras", promptSyntax: "plain" } as const;

/** Noise levels of each part: the last of the one is the first of the other. */
function partsOf(request: GenerateRequest) {
  const context = { model, refiner: model, rankCount: 1, naming: asFlag, files: requestFiles() };
  const base = planImages({ prompt: "a", ...levels, ...request }, context, noImages);
  const refined = base.refined!;
  return {
    counts: [base.schedule.steps.length, refined.schedule.steps.length],
    meet: [base.schedule.sigmas!.at(-1), refined.schedule.sigmas![0]],
  };
}

test.each<[string, GenerateRequest, [number, number]]>([
  // Most of Karras' levels are low.
  ["noise levels", { denoisingEnd: 0.8, stepCount: 10 }, [6, 4]],
  ["A1111's steps", { compat: "a1111", denoisingEnd: 0.8, stepCount: 10 }, [8, 2]],
  ["a part of a step", { compat: "a1111", denoisingEnd: 0.75, stepCount: 10 }, [8, 2]],
  [
    "0.55 of 100, above 55 as a product",
    { compat: "a1111", denoisingEnd: 0.55, stepCount: 100 },
    [55, 45],
  ],
  ["ComfyUI's steps", { compat: "comfyui", denoisingEnd: 20 / 25, stepCount: 25 }, [20, 5]],
  [
    "A1111's from an image",
    { compat: "a1111", denoisingEnd: 0.5, stepCount: 10, latents, strength: 0.5 },
    [3, 3],
  ],
  [
    "ComfyUI's from an image",
    { compat: "comfyui", denoisingEnd: 0.5, stepCount: 10, latents, strength: 0.5 },
    [5, 5],
  ],
])("%s", (_, request, counts) => {
  const parts = partsOf(request);
  expect(parts.counts).toEqual(counts);
  expect(parts.meet[1]).toBeCloseTo(parts.meet[0]!, 5);
});
