/**
 * Steps that reuse earlier ones together with LoRAs, prompts combined by AND, guidance windows,
 * batches, previews, several ranks and a cancelled job. The requests are random.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { writeRandomLora } from "../../src/bench/support/random-lora.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { type GenerateRequest, type GenerateResult, Pipeline } from "../../src/pipeline.ts";
import { qualities } from "../../src/settings/names.ts";
import { relativeL2 } from "../support/compare.ts";
import { sampled, seedName } from "../support/seed.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-reuse-"));
afterAll(() => rmSync(folder, { recursive: true }));

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const lora = join(folder, "lora.safetensors");
writeRandomLora(lora, model, /attn\d\.to_|conv1$|self_attn/);

const stepCount = 6;
const requests = fc
  .record({
    quality: fc.constantFrom(...qualities.filter((quality) => quality !== "exact")),
    deepCache: fc.option(fc.constantFrom("2", "1,3@0.3", "6"), { nil: undefined }),
    deepCacheBranch: fc.nat(2),
    crossAttentionGate: fc.option(fc.integer({ min: 1, max: stepCount - 1 }), { nil: undefined }),
    hasLora: fc.boolean(),
    combines: fc.boolean(),
    guidanceStart: fc.constantFrom(0, 0.2),
    guidanceEnd: fc.constantFrom(0.6, 1),
    imageCount: fc.integer({ min: 1, max: 2 }),
    splitBatch: fc.boolean(),
  })
  .map(({ hasLora, combines, imageCount, ...settings }): GenerateRequest => {
    const gate = settings.crossAttentionGate;
    return {
      ...settings,
      // The gate ends guidance; it must have begun.
      guidanceStart: gate === 1 ? 0 : settings.guidanceStart,
      prompt: combines ? "a red circle AND a house :0.5" : "a red circle",
      ...{ negativePrompt: "blurry", promptSyntax: "a1111", width: 32, height: 128, stepCount },
      ...{ loras: hasLora ? [{ file: lora, scale: 0.7 }] : [], batchSize: 2, wantLatents: true },
      seeds: [5n, 6n].slice(0, imageCount),
      ...{ scheduler: "euler", syncMode: "full_sync" },
    };
  });

function open(first: GenerateRequest, rankCount: number): Promise<Pipeline> {
  return Pipeline.open({ model, first, devices: { device: "cpu", rankCount } });
}

async function generateOn(rankCount: number, request: GenerateRequest): Promise<GenerateResult> {
  await using pipeline = await open(request, rankCount);
  return await pipeline.generate(request);
}

describe(`reuse together with other settings, ${seedName}`, () => {
  test("ranks in full_sync are one rank, and previews change no bit", async () => {
    for (const request of sampled(requests, 6)) {
      const one = await generateOn(1, request);
      expect(one.reusedSteps?.full).toBeLessThan(one.timings.stepMs.length);
      for (const rankCount of [2, 3, 4]) {
        await using pipeline = await open(request, rankCount);
        const several = await pipeline.generate(request);
        expect(several.reusedSteps).toEqual(one.reusedSteps);
        expect(relativeL2(several.latents!, one.latents!)).toBeLessThanOrEqual(1e-5);
        const previewed = await pipeline.generate(request, { previewSteps: 1 });
        expect(previewed.latents).toEqual(several.latents);
      }
    }
  }, 120_000);

  test("an image is the same alone and in a batch", async () => {
    for (const drawn of sampled(requests, 3)) {
      const request = { ...drawn, seeds: [5n, 6n] };
      await using pipeline = await open(request, 2);
      const together = await pipeline.generate(request);
      const alone: number[] = [];
      for (const seed of request.seeds) {
        alone.push(...(await pipeline.generate({ ...request, seeds: [seed] })).latents!);
      }
      expect(relativeL2(together.latents!, alone)).toBeLessThanOrEqual(1e-5);
    }
  }, 60_000);

  test.each([1, 4])("%i ranks: nothing is left of a job or of its LoRA", async (rankCount) => {
    const [drawn] = sampled(requests, 1);
    // After the first step all are cached.
    const request = { ...drawn!, deepCache: "500", crossAttentionGate: undefined };
    const asked = { ...request, syncMode: "corrected_async_gn", loras: [{ file: lora }] } as const;
    await using pipeline = await open(asked, rankCount);
    const first = await pipeline.generate(asked);
    const exact = { ...asked, loras: [], deepCache: "1", quality: "exact" } as const;
    expect((await pipeline.generate(exact)).latents).not.toEqual(first.latents);
    const long = pipeline.generate(
      { ...asked, stepCount: 500, guidanceStart: 0, guidanceEnd: 1 },
      {
        id: "long",
        previewSteps: 1,
        onEvent: ({ type }) => void (type === "preview" && pipeline.cancel("long")),
      },
    );
    expect(await long.catch(({ code }) => code)).toBe("cancelled");
    expect((await pipeline.generate(asked)).latents).toEqual(first.latents);
  });
});
