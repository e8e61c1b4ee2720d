/**
 * Runs of the golden model by the samplers of ComfyUI and k-diffusion against their own code
 * (tests/fixtures/k-sampler-runs.*, made by tests/reference/make_k_samplers.py): timesteps and
 * noise levels of each evaluation, and latents of two images in a batch and of the first alone.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { everyNth } from "../../src/bench/support/references.ts";
import { readSafetensors, tensorOf } from "../../src/bench/support/safetensors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import type { Pipeline } from "../../src/pipeline.ts";
import type { PredictionType, SigmaKind } from "../../src/samplers/names.ts";
import { makeSchedule } from "../../src/schedule.ts";
import { type Scheduler, samplerRows, schedulers } from "../../src/settings/samplers.ts";
import { relativeL2 } from "../support/compare.ts";
import { KeptPipelines } from "../support/kept-pipelines.ts";
import { measured } from "../support/measured.ts";

setDefaultTimeout(60_000);

type Tool = "comfyui" | "a1111";
type Run = [Tool, Scheduler, SigmaKind, number, PredictionType, evaluationCount: number];

interface Notes {
  side: number;
  seeds: number[];
  guidance: number;
  stride: number;
  runs: Run[];
}

const fixtures = join(import.meta.dir, "../fixtures");
// Others of the same kind may be compared by hand.
const recorded = process.env.K_SAMPLER_RUNS ?? join(fixtures, "k-sampler-runs");
const notes: Notes = JSON.parse(readFileSync(`${recorded}.json`, "utf8"));
const tensors = readSafetensors(`${recorded}.safetensors`);
const [latents, timesteps, sigmas, intervals] = [
  takerOf("latents"),
  takerOf("timesteps"),
  takerOf("sigmas"),
  takerOf("intervals"),
] as const;
const model = await openModelFolder(join(fixtures, "golden/model"));
const flavours = { comfyui: "kdiffusion", a1111: "a1111" } as const;

/** One for each prediction type. */
const pipelines = new KeptPipelines();
afterAll(() => pipelines.close());

const modelOf = (predictionType: PredictionType) => ({
  ...model,
  scheduler: { ...model.scheduler, predictionType },
});

function pipelineOf(prediction: PredictionType): Promise<Pipeline> {
  return pipelines.of(prediction, { model: modelOf(prediction), devices: { device: "cpu" } });
}

/** The noise of these runs goes on with the generator of each image. */
const plain = {
  ...({ promptSyntax: "plain", emptyNegative: "auto", rng: "cpu" } as const),
  ...({ noiseOrder: "image", stepRng: "same", noiseSampler: "generator" } as const),
};

describe("equal to the tool's own code", () => {
  const width = tensorOf(tensors, "latents").data.length / notes.runs.length;
  for (const run of notes.runs) {
    const [tool, scheduler, kind, stepCount, prediction, evaluationCount] = run;
    const flavour = flavours[tool];
    const config = modelOf(prediction).scheduler;
    const ours = makeSchedule(scheduler, config, { stepCount, sigmas: kind, flavour });
    const noises = ours.steps.filter((step) => step.samplesNoise && ours.brownianRange !== null);
    const theirs = {
      latents: latents(width),
      timesteps: timesteps(evaluationCount),
      sigmas: sigmas(evaluationCount),
      intervals: intervals(2 * noises.length),
    };

    test(run.slice(0, 5).join(" "), async () => {
      expect(ours.timesteps).toHaveLength(evaluationCount);
      expect(largestError(ours.timesteps, theirs.timesteps)).toBeLessThanOrEqual(1e-6);
      expect(largestError(ours.sigmas!, theirs.sigmas)).toBeLessThanOrEqual(1e-6);
      const levels = noises.flatMap(({ noiseFrom = 0, noiseTo = 0 }) => [noiseFrom, noiseTo]);
      expect(largestError(levels, theirs.intervals)).toBeLessThanOrEqual(1e-6);
      expect(ours.noise).toBe(ours.brownianRange === null ? "generator" : "brownian");
      const pipeline = await pipelineOf(prediction);
      const request = { width: notes.side, height: notes.side, stepCount, scheduler, sigmas: kind };
      const seeds = notes.seeds.map(BigInt);
      for (const count of stepCount > 5 ? [seeds.length] : [seeds.length, 1]) {
        const result = await pipeline.generate({
          ...{ ...request, ...plain, compat: tool, guidanceScale: notes.guidance },
          ...{ prompt: "a red circle", negativePrompt: "blurry", wantLatents: true },
          seeds: seeds.slice(0, count),
          batchSize: count,
        });
        const own = everyNth(result.latents!, notes.stride);
        const error = relativeL2(own, theirs.latents.subarray(0, own.length));
        expect(measured(`latents of ${run.join(" ")}`, error, 1e-4)).toBeLessThanOrEqual(1e-4);
      }
    });
  }
});

test("every sampler with a form of k-diffusion is there", () => {
  const named = new Set(notes.runs.map(([, scheduler]) => scheduler));
  expect(named).toEqual(new Set(schedulers.filter((name) => samplerRows[name].sampler.hasKForm)));
});

// --- internal ---

/** Gives the next numbers of a recorded tensor each time. */
function takerOf(name: string): (count: number) => Float32Array {
  const { data } = tensorOf(tensors, name);
  let taken = 0;
  return (count) => {
    taken += count;
    return data.subarray(taken - count, taken);
  };
}

/** Relative, but for timestep 0. */
function largestError(ours: ArrayLike<number>, theirs: Float32Array): number {
  return Math.max(
    0,
    ...theirs.map((value, i) => Math.abs(ours[i]! - value) / Math.max(value, 1e-3)),
  );
}
