/**
 * Two passes: the second is an image to start from, made by hand, to the bit; progress and events
 * of both; cancelling; ranks and batches.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { resized } from "../../src/image/transform.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { interpolated } from "../../src/pipeline/latent-resize.ts";
import { type GenerateRequest, Pipeline, type PipelineEvent } from "../../src/pipeline.ts";
import { refusal } from "../support/refusal.ts";

// Twelve generations, and the cores may be busy.
setDefaultTimeout(60_000);

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const base = { width: 64, height: 96, stepCount: 4, warmupSteps: 4 } as const;
const request: GenerateRequest = {
  ...base,
  prompt: ["a red circle", "a blue square"],
  seeds: [3n, 9n],
  batchSize: 2,
};
const second = { hires: 1.5, hiresStrength: 0.5, hiresSteps: 6, hiresUpscaler: "lanczos" } as const;

async function open(rankCount = 1, first: GenerateRequest = request) {
  return await Pipeline.open({ model, devices: { device: "cpu", rankCount }, first });
}

test("the second pass is that of the enlarged image by hand, on one rank and three", async () => {
  for (const rankCount of [1, 3]) {
    await using pipeline = await open(rankCount, { ...request, ...second });
    const both = await pipeline.generate({ ...request, ...second });
    const plain = await pipeline.generate(request);
    expect(both).toMatchObject({ width: 96, height: 160 });
    for (const [index, { pixels }] of plain.images.entries()) {
      const image = await resized({ pixels, ...base }, { width: 96, height: 160 }, "stretch");
      const byHand = await pipeline.generate({
        ...request,
        prompt: request.prompt![index]!,
        seeds: [request.seeds![index]!],
        ...{ image, width: undefined, height: undefined, strength: 0.5, stepCount: 6 },
        warmupSteps: 3,
      });
      expect(both.images[index]).toMatchObject({ index, width: 96, height: 160 });
      expect(both.images[index]!.pixels).toEqual(byHand.images[0]!.pixels);
    }
    expect(both.timings.stepMs.length).toBe(4 + 2 * 3);
    expect(both.timings.encodeMs).toBeGreaterThan(0);
  }
});

test.each([
  ["latent", "bilinear"],
  ["latent-nearest-exact", "nearest-exact"],
] as const)("%s: the second pass is that of the enlarged latents by hand", async (name, mode) => {
  await using pipeline = await open();
  const asked = { ...second, hiresUpscaler: name };
  const both = await pipeline.generate({ ...request, ...asked });
  const { latents, latentShape } = await pipeline.generate({ ...request, wantLatents: true });
  const [count, channels, rows, columns] = latentShape;
  const from = { width: columns, height: rows };
  const values = interpolated(latents!, from, { width: 12, height: 20 }, mode);
  const shape = [count, channels, 20, 12] as const;
  const { width: _, height: __, ...others } = request;
  const byHand = await pipeline.generate({
    ...others,
    ...{ latents: { values, shape }, strength: 0.5, stepCount: 6, warmupSteps: 3 },
  });
  for (const [index, { pixels }] of both.images.entries()) {
    expect(pixels).toEqual(byHand.images[index]!.pixels);
  }
  // Nothing is decoded or encoded between the passes.
  expect(both.timings.encodeMs).toBe(0);
});

test("events are of both passes, and images come out of the second alone", async () => {
  await using pipeline = await open();
  const events: PipelineEvent[] = [];
  const asked = { ...request, ...second, wantLatents: true };
  const result = await pipeline.generate(asked, {
    previewSteps: 1,
    onEvent: (event) => void events.push(event),
  });
  const of = <Type extends PipelineEvent["type"]>(type: Type) =>
    events.filter((event): event is PipelineEvent & { type: Type } => event.type === type);
  expect(of("start").length).toBe(1);
  expect(of("image").map(({ index }) => index)).toEqual([0, 1]);
  const passes = of("progress").map(({ pass, images }) => [pass?.index, images.first]);
  expect(new Set(passes.map(String))).toEqual(new Set(["1,1", "2,1", "2,2"]));
  const sizes = of("preview").map(({ width, height }) => `${width}x${height}`);
  expect(new Set(sizes)).toEqual(new Set(["8x12", "12x20"]));
  expect(result.latentShape).toEqual([2, 4, 20, 12]);
  expect(result.latents!.length).toBe(2 * 4 * 20 * 12);
});

test("at strength 0 images are enlarged alone", async () => {
  await using pipeline = await open();
  const passes = new Set<unknown>();
  const asked = { ...request, ...second, hiresStrength: 0, hiresSteps: undefined };
  const both = await pipeline.generate(asked, {
    onEvent: (event) => void (event.type === "progress" && passes.add(event.pass)),
  });
  const plain = await pipeline.generate(request);
  expect([both.width, both.height]).toEqual([96, 160]);
  for (const [index, { pixels }] of plain.images.entries()) {
    const image = await resized({ pixels, ...base }, { width: 96, height: 160 }, "stretch");
    expect(both.images[index]!.pixels).toEqual(image.pixels);
  }
  expect([both.timings.stepMs.length, both.timings.encodeMs]).toEqual([4, 0]);
  expect(passes).toEqual(new Set([undefined]));
});

test("a job is cancelled in the second pass", async () => {
  await using pipeline = await open();
  const controller = new AbortController();
  const running = pipeline.generate(
    { ...request, ...second },
    {
      signal: controller.signal,
      onEvent: (event) => {
        if (event.type === "progress" && event.pass?.index === 2) controller.abort();
      },
    },
  );
  await refusal(() => running, "cancelled");
  expect((await pipeline.generate(request)).images.length).toBe(2);
});

test("what does not fit in the second pass is refused before weights load", async () => {
  const message = await refusal(
    () => open(1, { ...request, ...base, width: 2048, height: 2048, hires: 4 }),
    "no-memory",
  );
  expect(message).toContain("memory");
});
