/**
 * The second pass of a request, planned: sizes, steps, seeds, what is refused, and what images say
 * of it.
 */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { recipeOfInfotext } from "../../src/metadata/from-infotext.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { checkTogether, finalSize } from "../../src/pipeline/hires.ts";
import { noImages } from "../../src/pipeline/read-images.ts";
import { planImages } from "../../src/pipeline/refine.ts";
import type { GenerateRequest } from "../../src/pipeline/request.ts";
import { requestFiles } from "../../src/pipeline/request-files.ts";
import { asFlag } from "../../src/settings/values.ts";
import { refusal } from "../support/refusal.ts";

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const unit = model.sizeMultiple;

function planOf(request: GenerateRequest) {
  const context = { model, refiner: null, rankCount: 1, naming: asFlag, files: requestFiles() };
  return planImages({ prompt: "a", width: 96, height: 64, ...request }, context, noImages);
}

function secondOf(request: GenerateRequest) {
  const { hires } = planOf({ hires: 2, ...request });
  return hires!.plan;
}

test("one pass where none is asked for", () => {
  const plan = planOf({});
  expect(plan.hires).toBeNull();
  expect(finalSize(plan)).toMatchObject({ width: 96, height: 64 });
});

describe("the second pass", () => {
  test("is as large as asked for, in the model's unit", () => {
    for (const hires of [1, 1.5, 1.7, 2, 4]) {
      const plan = planOf({ hires });
      const { width, height } = finalSize(plan);
      expect(Math.abs(width - 96 * hires)).toBeLessThanOrEqual(unit / 2);
      expect(Math.abs(height - 64 * hires)).toBeLessThanOrEqual(unit / 2);
      expect([width % unit, height % unit]).toEqual([0, 0]);
      expect(plan.settings).toMatchObject({ width: 96, height: 64, strength: undefined });
    }
  });

  test("has prompts, seeds and sampler of the first, an image at a time", () => {
    const request = {
      prompt: ["a", "b"],
      seeds: [7n, 3n],
      batchSize: 2,
      scheduler: "ddim",
    } as const;
    const plan = planOf({ ...request, hires: 2 });
    const second = plan.hires!.plan;
    expect(second.batches.map(({ images }) => images.map(({ seed }) => seed))).toEqual([
      [7n],
      [3n],
    ]);
    expect(second.batches.map(({ range }) => range.first)).toEqual([1, 2]);
    expect(second.batches[1]!.images[0]!.tokens.prompts).toEqual(
      plan.batches[0]!.images[1]!.tokens.prompts,
    );
    expect(second.schedule.name).toBe("ddim");
  });

  test("has the random seeds of the first", () => {
    const plan = planOf({ hires: 2 });
    expect(plan.hires!.plan.settings.seed).toBe(plan.settings.seed);
  });

  test("takes a part of its steps, or with the other tools so many", () => {
    const taken = (request: GenerateRequest) => secondOf(request).schedule.steps.length;
    expect(taken({ stepCount: 20, hiresStrength: 0.35 })).toBe(7);
    expect(taken({ stepCount: 20, hiresSteps: 10, hiresStrength: 0.5 })).toBe(5);
    const exact = { scheduler: "euler", stepCount: 20, hiresStrength: 0.35 } as const;
    expect(taken({ ...exact, compat: "a1111" })).toBe(20);
    expect(taken({ ...exact, compat: "comfyui", hiresSteps: 8 })).toBe(8);
  });

  test("has no more synchronous steps than steps", () => {
    const plan = planOf({ hires: 2, stepCount: 10, warmupSteps: 9, hiresStrength: 0.2 });
    expect([plan, plan.hires!.plan].map(({ settings }) => settings.warmupSteps)).toEqual([9, 2]);
  });
});

test("strengths are those that the upscaler needs", () => {
  const strengthOf = (hiresUpscaler?: string) =>
    planOf({ hires: 2, hiresUpscaler }).settings.hiresStrength;
  expect([strengthOf(), strengthOf("latent-bicubic"), strengthOf("lanczos")]).toEqual([
    0.7, 0.7, 0.4,
  ]);
});

test("at strength 0 an image is only enlarged", () => {
  const plan = planOf({ hires: 2, hiresStrength: 0, hiresUpscaler: "lanczos" });
  expect([plan.hires!.denoises, plan.settings.hiresStrength]).toEqual([false, 0]);
});

test("several processes share latents alone", async () => {
  checkTogether(planOf({}), asFlag);
  checkTogether(planOf({ hires: 2 }), asFlag);
  const plan = planOf({ hires: 2, hiresUpscaler: "lanczos" });
  expect(await refusal(() => checkTogether(plan, asFlag), "bad-option")).toContain("one process");
});

test("what cannot be is refused in a sentence", async () => {
  const refused = (request: GenerateRequest) => refusal(() => planOf(request), "bad-option");
  expect(await refused({ hiresSteps: 3 })).toBe("--hires-steps needs --hires.");
  expect(await refused({ hires: 5 })).toContain("--hires must be a number from 1 to 4, not 5");
  expect(await refused({ hires: 2, denoisingEnd: 0.8 })).toContain("--denoising-end 1");
  expect(await refused({ hires: 2, hiresStrength: 0 })).toContain(
    "--hires-strength must be above 0",
  );
  const enlarged = { hires: 2, hiresStrength: 0, hiresUpscaler: "lanczos" };
  expect(await refused({ ...enlarged, hiresSteps: 3 })).toContain("--hires-steps needs");
  expect(await refused({ ...enlarged, wantLatents: true })).toContain("wantLatents needs");
  expect(await refused({ hires: 4, width: 4096 })).toContain("8192 pixels a side are possible");
  expect(await refused({ hires: 2, stepCount: 2, hiresStrength: 0.1 })).toContain(
    "--hires-strength 0.1 of 2 steps is none",
  );
});

test("A1111's text says it, and is read again", () => {
  const text = (upscaler: string) => `a house
Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x512, Denoising strength: 0.4, \
Hires upscale: 1.5, Hires steps: 10, Hires upscaler: ${upscaler}, Version: v1.9.3`;
  const { settings, warnings } = recipeOfInfotext(text("Lanczos"));
  expect(warnings).toEqual([]);
  expect(settings).toMatchObject({ hires: 1.5, hiresSteps: 10, hiresStrength: 0.4 });
  expect(settings.hiresUpscaler).toBe("lanczos");
  const latent = recipeOfInfotext(text("Latent (nearest-exact)"));
  expect(latent.settings.hiresUpscaler).toBe("latent-nearest-exact");
  expect(recipeOfInfotext(text("Nothing")).warnings).toEqual([
    "The hires fix of the image is not repeated.",
  ]);
});
