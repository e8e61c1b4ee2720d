/**
 * Batches of images that differ in prompt, negative prompt, guidance scale and seed: each is the
 * same, bit for bit, as when it is generated alone.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { openModelFolder } from "../../src/models/folder.ts";
import { type GenerateRequest, Pipeline } from "../../src/pipeline.ts";

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const size = { width: 64, height: 64, stepCount: 2 } as const;

const images = fc.array(
  fc.record({
    prompt: fc.constantFrom("a red circle", "a blue square", "x"),
    negativePrompt: fc.constantFrom(null, "", "blurry"),
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
    await using pipeline = await Pipeline.open({ model, devices: { rankCount, gpu: null } });
    await fc.assert(
      fc.asyncProperty(images, settings, async (all, how) => {
        const common = { ...size, ...how, wantLatents: true } as Partial<GenerateRequest>;
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
