/**
 * The golden model as one that predicts v, with and without zero terminal SNR, against runs of
 * diffusers: every sampler, its schedule, two images in a batch and the first of them alone.
 */

import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { everyNth, keptOf, relativeL2From } from "../../src/bench/support/references.ts";
import { readSafetensors, tensorOf } from "../../src/bench/support/safetensors.ts";
import { type GenerateRequest, Pipeline, preparePipeline } from "../../src/pipeline.ts";
import { schedulerNameOfClass } from "../../src/schedule.ts";
import notes from "../fixtures/v-prediction.json";
import { relativeL2 } from "../support/compare.ts";
import { measured } from "../support/measured.ts";

const fixtures = join(import.meta.dir, "../fixtures");
const tensors = readSafetensors(join(fixtures, "v-prediction.safetensors"));
const model = join(fixtures, "golden/model");

interface Config {
  rescale_betas_zero_snr?: boolean;
  timestep_spacing?: "trailing";
  use_karras_sigmas?: boolean;
}

describe.each(notes.runs)("$name", ({ name, scheduler, config, rescale }) => {
  const { rescale_betas_zero_snr: isZero = false, ...spacing }: Config = config as Config;
  const options = {
    model,
    devices: { device: "cpu" },
    predictionType: "v_prediction",
    rescaleBetasZeroSnr: isZero,
  } as const;
  const request: GenerateRequest = {
    prompt: "a red circle",
    negativePrompt: "blurry",
    width: notes.side,
    height: notes.side,
    stepCount: notes.steps,
    guidanceRescale: rescale,
    scheduler: schedulerNameOfClass(scheduler)!,
    timestepSpacing: spacing.timestep_spacing,
    useKarrasSigmas: spacing.use_karras_sigmas,
    batchSize: notes.seeds.length,
    wantLatents: true,
  };

  test("timesteps and sigmas within 1e-6", async () => {
    const { plan } = await preparePipeline({ ...options, first: request });
    for (const part of ["timesteps", "sigmas"] as const) {
      const ours = plan.schedule[part];
      const theirs = tensors.get(`${name}.${part}`)?.data;
      expect(ours?.length).toBe(theirs?.length);
      for (const [i, value] of (theirs ?? []).entries()) {
        expect(Math.abs(ours![i]! - value)).toBeLessThanOrEqual(1e-6 * Math.abs(value));
      }
    }
  });

  test("latents of two images and of one within 1e-4", async () => {
    await using pipeline = await Pipeline.open(options);
    const seeds = notes.seeds.map(BigInt);
    const both = (await pipeline.generate({ ...request, seeds })).latents!;
    const error = relativeL2From(tensors, `${name}.latents`, both);
    expect(measured(`latents of ${name}`, error, 1e-4)).toBeLessThanOrEqual(1e-4);
    const { data, stride } = keptOf(tensors, `${name}.latents`);
    const alone = (await pipeline.generate({ ...request, seeds: seeds.slice(0, 1) })).latents!;
    const kept = everyNth(alone, stride);
    expect(relativeL2(kept, data.subarray(0, kept.length))).toBeLessThanOrEqual(1e-4);
  });
});

test("the recorded first timesteps are those of pure noise with trailing spacing alone", () => {
  const first = (name: string) => tensorOf(tensors, `${name}.timesteps`).data[0];
  expect(first("euler_zero")).toBe(999);
  expect(first("euler_zero_leading")).toBeLessThan(999);
});
