/**
 * Batches of images that differ in prompt, embeddings, negative prompt, guidance scale and seed:
 * each is the same, bit for bit, as when it is generated alone.
 */
import { afterAll, expect, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { openModelFolder } from "../../src/models/folder.ts";
import { previewPixels } from "../../src/pipeline/preview.ts";
import { type GenerateRequest, Pipeline, type PreviewEvent } from "../../src/pipeline.ts";
import { embeddingFiles, removeEmbeddings } from "../support/embedding-files.ts";

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const embeddings = [...embeddingFiles().values()].map((file) => ({ file }));
afterAll(removeEmbeddings);

const size = { width: 64, height: 64, stepCount: 2 } as const;

const images = fc.array(
  fc.record({
    prompt: fc.constantFrom("a red circle", "a blue square", "x", "a blot-style circle", "half"),
    negativePrompt: fc.constantFrom(null, "", "blurry", "bad_mood"),
    guidanceScale: fc.constantFrom(1.5, 5, 7.5, 12),
    seed: fc.bigInt({ min: 0n, max: 99n }),
  }),
  { minLength: 2, maxLength: 4 },
);

const settings = fc.record({
  scheduler: fc.constantFrom("euler", "euler_a", "ddim"),
  guidanceRescale: fc.constantFrom(0, 0.7),
  rng: fc.constantFrom("cpu", "cuda"),
});

test.each([1, 2, 4])(
  "with %d rank(s)",
  async (rankCount) => {
    await using pipeline = await Pipeline.open({ model, devices: { device: "cpu", rankCount } });
    await fc.assert(
      fc.asyncProperty(images, settings, async (all, how) => {
        const given = { embeddings, wantLatents: true };
        const common = { ...size, ...how, ...given } as Partial<GenerateRequest>;
        const batch = await pipeline.generate({
          ...common,
          prompt: all.map(({ prompt }) => prompt),
          negativePrompt: all.map(({ negativePrompt }) => negativePrompt),
          guidanceScale: all.map(({ guidanceScale }) => guidanceScale),
          seeds: all.map(({ seed }) => seed),
          batchSize: all.length,
        });
        const each = (batch.latents?.length ?? 0) / all.length;
        for (const [index, { seed, ...texts }] of all.entries()) {
          const alone = await pipeline.generate({ ...common, ...texts, seeds: [seed] });
          const latents = batch.latents?.subarray(index * each, (index + 1) * each);
          expect(latents).toEqual(alone.latents!);
          expect(batch.images[index]?.pixels).toEqual(alone.images[0]!.pixels);
        }
      }),
      { numRuns: 6 },
    );
  },
  120_000,
);

test("previews come at the steps asked for, one per image, and change no bit", async () => {
  await using pipeline = await Pipeline.open({ model, devices: { device: "cpu", rankCount: 2 } });
  const request = { ...size, stepCount: 40, prompt: "x", seeds: [1n, 2n], batchSize: 2 };
  const seen: PreviewEvent[] = [];
  const previewed = await pipeline.generate(request, {
    previewSteps: 3,
    onEvent: (event) => void (event.type === "preview" && seen.push(event)),
  });
  const plain = await pipeline.generate(request, {
    onEvent: ({ type }) => expect(type).not.toBe("preview"),
  });
  expect(previewed.images).toEqual(plain.images);
  expect(seen.length).toBeGreaterThan(0);
  expect(seen.map(({ index }) => index)).toEqual(seen.map((_, i) => i % 2));
  for (const { stepIndex, width, height, pixels } of seen) {
    expect(stepIndex % 3).toBe(0);
    expect(stepIndex).toBeLessThan(40);
    expect([width, height, pixels.length]).toEqual([8, 8, 8 * 8 * 3]);
    expect(new Set(pixels).size).toBeGreaterThan(10);
  }
});

test("a preview is the latent times SDXL's factors, limited to bytes", () => {
  const latent = new Float32Array([1, -1, 0.5, 0.25, 0, 0, 0, 0]);
  const bytes = [0, 1, 2].map((colour) => {
    const factors = [
      [0.3651, -0.2533, 0.1076, -0.3165],
      [0.4232, -0.0042, 0.1111, -0.2492],
      [0.4341, 0.1068, -0.0362, -0.2188],
    ][colour]!;
    const bias = [0.1084, -0.0175, -0.0011][colour]!;
    const level = factors.reduce((sum, factor, i) => sum + factor * latent[i]!, bias);
    return Math.round(255 * (level / 2 + 0.5));
  });
  expect([...previewPixels(latent, 4)]).toEqual([...bytes, 141, 125, 127]);
});
