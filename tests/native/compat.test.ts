/**
 * --compat against the tools themselves, from prompt to latents (tests/fixtures/compat.*, made by
 * tests/reference/make_compat.py): parsers, chunks, weights, noise, noise levels, guidance and
 * samplers of ComfyUI and A1111 on the golden model.
 */
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { goldenModel } from "../../src/bench/support/golden-model.ts";
import { everyNth } from "../../src/bench/support/references.ts";
import { readSafetensors } from "../../src/bench/support/safetensors.ts";
import { type GenerateRequest, Pipeline } from "../../src/pipeline.ts";
import type { Compat } from "../../src/settings/names.ts";
import { relativeL2 } from "../support/compare.ts";
import { measured } from "../support/measured.ts";

setDefaultTimeout(60_000);

interface Run {
  /** The tool, and what is special. */
  name: string;
  /** Names of the tool. */
  sampler: string;
  schedule?: string;
  prompt: string;
  negative: string;
  steps: number;
  guidance: number;
  seed: number;
  images: number;
  width: number;
  /** A1111's generator; the GPU's where there is none. */
  rng?: "CPU";
  /** Whether the model predicts v, and its noise levels end in pure noise. */
  zero_snr?: true;
}

// Others of the same kind may be compared by hand.
const recorded = process.env.COMPAT_RUNS ?? join(import.meta.dir, "../fixtures/compat");
const notes: { side: number; stride: number; runs: Run[] } = JSON.parse(
  readFileSync(`${recorded}.json`, "utf8"),
);
const tensors = readSafetensors(`${recorded}.safetensors`);
const plain = { model: goldenModel, devices: { device: "cpu" } } as const;
const ofZeroSnr = { predictionType: "v_prediction", rescaleBetasZeroSnr: true } as const;
const pipeline = await Pipeline.open(plain);
const zeroSnr = await Pipeline.open({ ...plain, ...ofZeroSnr });
afterAll(() => Promise.all([pipeline.close(), zeroSnr.close()]));

/** What a user of the tool writes. */
function requestOf({ name, sampler, schedule, rng, ...run }: Run): GenerateRequest {
  const compat = name.split(" ")[0] as Compat;
  // The reference is ComfyUI on a CPU.
  const noise = compat === "comfyui" ? { stepRng: "cpu" as const } : {};
  return {
    compat,
    scheduler: sampler as "euler",
    ...(schedule !== undefined && { sigmas: schedule as "karras" }),
    ...(rng === "CPU" && { rng: "cpu" }),
    ...noise,
    prompt: run.prompt,
    negativePrompt: run.negative,
    stepCount: run.steps,
    guidanceScale: run.guidance,
    seeds: Array.from({ length: run.images }, (_, index) => BigInt(run.seed + index)),
    batchSize: run.images,
    width: run.width,
    height: notes.side,
    wantLatents: true,
  };
}

/** The bar of issue 18; f32 on both sides, whose sums are in another order. */
const tolerance = 1e-4;

test.each(notes.runs)("$name: $sampler", async (run) => {
  const { latents, warnings } = await (run.zero_snr ? zeroSnr : pipeline).generate(requestOf(run));
  const expected = tensors.get(run.name)!.data as Float32Array;
  const error = relativeL2(everyNth(latents!, notes.stride), expected);
  measured(`compat ${run.name}`, error, tolerance);
  expect(error).toBeLessThan(tolerance);
  // Of all runs of ComfyUI only those with noise in their steps need the CPU's.
  expect(warnings.filter((warning) => !warning.startsWith("stepRng is not used"))).toEqual([]);
});

/** Values that another tool has, and a run that shows it. */
const others: [run: string, GenerateRequest][] = [
  ["comfyui euler", { promptSyntax: "a1111" }],
  ["comfyui euler", { emptyNegative: "zeros" }],
  ["comfyui euler", { rng: "cuda" }],
  ["comfyui euler", { firstSigma: "sigma" }],
  ["comfyui long", { noiseOrder: "image" }],
  ["comfyui long", { timestepRounding: "none" }],
  ["comfyui euler_a", { stepRng: "same" }],
  ["comfyui sde", { noiseSampler: "generator" }],
  ["a1111 euler_a", { emphasis: "no_norm" }],
];

test.skipIf(process.env.COMPAT_RUNS !== undefined).each(others)(
  "%s: %o makes another image",
  async (name, other) => {
    const run = notes.runs.find((each) => each.name === name)!;
    const { latents } = await pipeline.generate({ ...requestOf(run), ...other });
    const expected = tensors.get(name)!.data as Float32Array;
    const error = relativeL2(everyNth(latents!, notes.stride), expected);
    expect(error).toBeGreaterThan(2 * tolerance);
  },
);
