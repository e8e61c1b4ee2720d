/**
 * All comparisons with PyTorch and diffusers, one measure at a time. The parity test and
 * `bun run bench parity` share this list, so the printed measures are the tested ones.
 */

import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { parseSchedulerConfig } from "../../models/config.ts";
import { openModelFolder } from "../../models/folder.ts";
import type { Model } from "../../models/model.ts";
import { nativeModelOf } from "../../models/native-model.ts";
import { ModelParts, type PartsOptions, randomNormal } from "../../native/testing.ts";
import { makeSchedule, samplerOfModel } from "../../schedule.ts";
import { maxAbs } from "./compare.ts";
import { writeWideModel } from "./formula-weights.ts";
import { generateOnce } from "./generate.ts";
import { everyNth, formulaInput, isRecorded, keptOf, relativeL2From } from "./references.ts";
import { readSafetensors, type Tensor } from "./safetensors.ts";

export interface Measure {
  /** The reference it is compared with: "golden", "wide" or "mini". */
  model: string;
  what: string;
  measured: number;
  allowed: number;
  unit: string;
}

/** Tolerances for f32 sums in another order, each with its reason. */
export const bars = {
  /** A dozen layers. */
  text: 1e-5,
  /** A hundred layers, each within 1e-6. */
  network: 2e-5,
  /** Twelve steps, each of which inherits the error of the previous one. */
  latents: 1e-4,
  /** Equal in f32, except for a last bit where they are computed from sigmas (Karras). */
  timesteps: 1.2e-7,
  /** One rounding of f32 is 6e-8. */
  sigmas: 1e-6,
  /** log, sin and cos of another library. */
  noise: 1e-6,
  /** A value next to a rounding edge may fall on its other side. */
  levels: 1,
};

interface Run {
  name: string;
  steps: number;
  guidance: number;
  /** guidance_rescale; absent for 0. */
  rescale?: number;
  seed: number;
  prompt: string;
  negative: string | null;
  width: number;
  height: number;
  scheduler: string;
  config: Record<string, unknown>;
}

interface Reference {
  model: string;
  folder: Model;
  tensors: Map<string, Tensor>;
  runs: Run[];
  /** Size of the single passes, in pixels. */
  width: number;
  height: number;
}

/** tiling.json */
interface TilingNotes {
  tile_pixels: Record<string, number>;
  latent_rows: Record<string, number>;
}

const fixtures = join(import.meta.dir, "../../../tests/fixtures");
const goldenFiles = ["golden/golden", "golden/extra", "golden/rescale"];

export async function* measureParity(): AsyncGenerator<Measure> {
  yield* measureNoise();
  const golden = await goldenReference();
  yield* measureTokens("golden", golden.folder, readJson("golden/tokens.json"));
  yield* measureReference(golden);
  yield* measureTiles(golden.folder);
  yield* measureWide();
  const mini = await openModelFolder(join(import.meta.dir, "../../assets/mini-sdxl"));
  const runs = readJson("mini.json").runs;
  const size = { width: 256, height: 256 };
  yield* measureRuns({ model: "mini", folder: mini, tensors: read("mini"), runs, ...size });
}

/**
 * The networks of a copy of the golden model with other weights, as far as `tensors` has their
 * outputs.
 */
export async function* measureCopy(
  path: string,
  tensors: Map<string, Tensor>,
  options: PartsOptions = {},
): AsyncGenerator<Measure> {
  const folder = await openModelFolder(path);
  yield* measureParts({ ...(await goldenReference()), folder, tensors }, options);
}

/**
 * A model of SDXL's size with its `reference.safetensors`, as written by
 * tests/reference/make_full_size.py: too large to store or to test every time.
 */
export async function* measureFullSize(path: string): AsyncGenerator<Measure> {
  const folder = await openModelFolder(path);
  const tensors = readSafetensors(join(path, "reference.safetensors"));
  const parts = await ModelParts.open(nativeModelOf(folder));
  try {
    const size = { width: 256, height: 256 };
    const reference = { model: "full size", folder, tensors, runs: [], ...size };
    yield* measureUnet(reference, parts);
    yield* measureVae(reference, parts);
  } finally {
    await parts.close();
  }
}

/** A run of the golden model with the latents that diffusers ended at. */
export async function goldenRun(name: string) {
  const reference = await goldenReference();
  const run = reference.runs.find((each) => each.name === name);
  if (!run) throw new Error(`no run ${name}`);
  const latents = keptOf(reference.tensors, `run.${name}.latents`);
  return { model: withScheduler(reference.folder, run), run, latents };
}

// --- internal ---

async function goldenReference(): Promise<Reference> {
  return {
    model: "golden",
    width: 256,
    height: 256,
    folder: await openModelFolder(join(fixtures, "golden/model")),
    tensors: new Map(goldenFiles.flatMap((name) => [...read(name)])),
    runs: goldenFiles.flatMap((name) => readJson(`${name}.json`).runs),
  };
}

async function* measureWide(): AsyncGenerator<Measure> {
  const path = writeWideModel();
  try {
    const folder = await openModelFolder(path);
    const { tokens, runs } = readJson("wide/golden.json");
    yield* measureTokens("wide", folder, tokens);
    const tensors = read("wide/golden");
    yield* measureReference({ model: "wide", width: 192, height: 320, folder, tensors, runs });
  } finally {
    rmSync(path, { recursive: true });
  }
}

async function* measureReference(reference: Reference): AsyncGenerator<Measure> {
  yield* measureParts(reference);
  yield* measureSchedules(reference);
  yield* measureRuns(reference);
}

async function* measureParts(
  reference: Reference,
  options: PartsOptions = {},
): AsyncGenerator<Measure> {
  const parts = await ModelParts.open(nativeModelOf(reference.folder), options);
  try {
    const { tensors } = reference;
    if (isRecorded(tensors, "text.pooled")) yield* measureText(reference, parts);
    if (isRecorded(tensors, "unet.out")) yield* measureUnet(reference, parts);
    if (isRecorded(tensors, "vae.image")) yield* measureVae(reference, parts);
  } finally {
    await parts.close();
  }
}

function* measureNoise(): Generator<Measure> {
  const tensors = read("golden/golden");
  const draws = [
    { name: "rng.cpu_seed0_1x4x32x32_twice", seed: 0n, count: 2, length: 4096 },
    { name: "rng.cpu_seed42_64", seed: 42n, count: 1, length: 64 },
    { name: "rng.cpu_seed7_15", seed: 7n, count: 1, length: 15 },
  ];
  for (const { name, seed, count, length } of draws) {
    const { stride, data } = keptOf(tensors, name);
    const measured = maxAbs(everyNth(randomNormal(seed, count, length), stride), data);
    yield { model: "torch", what: name, measured, allowed: bars.noise, unit: "absolute" };
  }
}

function* measureTokens(
  model: string,
  folder: Model,
  cases: { prompt: string; ids: number[]; ids_2: number[] }[],
): Generator<Measure> {
  let measured = 0;
  for (const { prompt, ids, ids_2 } of cases) {
    const pairs = [
      [folder.tokenizer!.encode(prompt).ids, ids],
      [folder.tokenizer2.encode(prompt).ids, ids_2],
    ] as const;
    for (const [ours, theirs] of pairs) {
      if (ours.length !== theirs.length) measured += Math.abs(ours.length - theirs.length);
      measured += theirs.filter((id, i) => ours[i] !== id).length;
    }
  }
  const what = `token ids of ${cases.length} prompts, both tokenizers`;
  yield { model, what, measured, allowed: 0, unit: "ids that differ" };
}

async function* measureText(reference: Reference, parts: ModelParts): AsyncGenerator<Measure> {
  const { model, folder, tensors, runs } = reference;
  const first = runs[0];
  if (!first) return;
  const cases = [
    { text: first.prompt, embeds: "text.prompt_embeds", pooled: "text.pooled" },
    {
      text: first.negative ?? "",
      embeds: "text.negative_prompt_embeds",
      pooled: "text.negative_pooled",
    },
  ];
  for (const { text, embeds, pooled } of cases) {
    const one = folder.tokenizer!.encode(text);
    const two = folder.tokenizer2.encode(text);
    const ours = await parts.promptEmbeds({
      ids: one.ids,
      ids2: two.ids,
      endIndex2: two.endIndex,
    });
    const unit = "relative L2";
    const allowed = bars.text;
    const embedsError = relativeL2From(tensors, embeds, ours.promptEmbeds);
    yield { model, what: embeds, measured: embedsError, allowed, unit };
    const pooledError = relativeL2From(tensors, pooled, ours.pooled);
    yield { model, what: pooled, measured: pooledError, allowed, unit };
  }
}

async function* measureUnet(reference: Reference, parts: ModelParts): AsyncGenerator<Measure> {
  const { model, folder, tensors, width, height } = reference;
  const { inChannels, crossAttentionDim } = folder.unet;
  const [latentRows, latentWidth] = [height / folder.vaeFactor, width / folder.vaeFactor];
  const batch = tensors.get("unet.sample")?.shape[0] ?? 2;
  const input = (name: string, shape: number[]) => inputOf(reference, name, shape, 1.7);
  const { output } = await parts.noisePrediction({
    sample: input("unet.sample", [batch, inChannels, latentRows, latentWidth]),
    batch,
    latentRows,
    latentWidth,
    timestep: 601,
    promptEmbeds: input("unet.encoder_hidden_states", [batch, 77, crossAttentionDim]),
    pooled: input("unet.text_embeds", [batch, folder.clip2.projectionSize]),
    timeIds: Float32Array.from(
      Array.from({ length: batch }, () => [height, width, 0, 0, height, width]).flat(),
    ),
  });
  const measured = relativeL2From(tensors, "unet.out", output);
  yield { model, what: "UNet forward", measured, allowed: bars.network, unit: "relative L2" };
}

async function* measureVae(reference: Reference, parts: ModelParts): AsyncGenerator<Measure> {
  const { model, folder, tensors, width, height } = reference;
  const { scalingFactor, latentChannels } = folder.vae;
  const [latentRows, latentWidth] = [height / folder.vaeFactor, width / folder.vaeFactor];
  const shape = [1, latentChannels, latentRows, latentWidth];
  const latent = inputOf(reference, "vae.latent", shape, 1.4);
  const scaled = latent.map((value) => value / scalingFactor);
  const { image } = await parts.decode(scaled, latentRows, latentWidth);
  const unit = "relative L2";
  const allowed = bars.network;
  const decodeError = relativeL2From(tensors, "vae.image", image);
  yield { model, what: "VAE decode", measured: decodeError, allowed, unit };

  const pixels = inputOf(reference, "vae.encode_image", [1, 3, height, width], 1);
  const mean = await parts.encode(pixels, latentRows, latentWidth);
  const encodeError = relativeL2From(tensors, "vae.encode_mean", mean);
  yield { model, what: "VAE encode", measured: encodeError, allowed, unit };
}

/** The recorded input, or the formula's. */
function inputOf(
  { model, tensors }: Reference,
  name: string,
  shape: number[],
  amplitude: number,
): Float32Array {
  return tensors.get(name)?.data ?? formulaInput(`${model}/${name}`, shape, amplitude).data;
}

/** Decoding in tiles against diffusers' own tiles. */
async function* measureTiles(folder: Model): AsyncGenerator<Measure> {
  const tensors = read("golden/tiling");
  const { tile_pixels, latent_rows } = readJson("golden/tiling.json") as TilingNotes;
  const parts = await ModelParts.open(nativeModelOf(folder));
  try {
    for (const [name, tilePixels] of Object.entries(tile_pixels)) {
      const [rows, width] = [latent_rows[name] ?? 0, 32];
      const shape = [1, folder.vae.latentChannels, rows, width];
      const { data } = formulaInput(`golden/tiling.${name}`, shape, 1.4);
      const scaled = data.map((value) => value / folder.vae.scalingFactor);
      const { image } = await parts.decode(scaled, rows, width, tilePixels / folder.vaeFactor);
      const measured = relativeL2From(tensors, `${name}.image`, image);
      const what = `VAE decode in tiles, ${name}`;
      yield { model: "golden", what, measured, allowed: bars.network, unit: "relative L2" };
    }
  } finally {
    await parts.close();
  }
}

function* measureSchedules({ model, folder, tensors, runs }: Reference): Generator<Measure> {
  for (const run of runs) {
    const { scheduler } = withScheduler(folder, run);
    const { name, replaced } = samplerOfModel(scheduler);
    if (replaced || !tensors.has(`run.${run.name}.timesteps`)) continue;
    const schedule = makeSchedule(name, scheduler, { stepCount: run.steps });
    for (const part of ["timesteps", "sigmas"] as const) {
      const theirs = tensors.get(`run.${run.name}.${part}`)?.data;
      const ours = schedule[part];
      if (!theirs || !ours) continue;
      const errors = theirs.map((value, i) => {
        const difference = Math.abs((ours[i] ?? Number.NaN) - value);
        return value === 0 ? difference : difference / Math.abs(value);
      });
      const measured = ours.length === theirs.length ? Math.max(...errors) : Number.NaN;
      const what = `${part} of ${run.name}`;
      yield { model, what, measured, allowed: bars[part], unit: "relative" };
    }
  }
}

async function* measureRuns({ model, folder, tensors, runs }: Reference): AsyncGenerator<Measure> {
  for (const run of runs) {
    const own = withScheduler(folder, run);
    if (samplerOfModel(own.scheduler).replaced) continue;
    const result = await generateOnce(own, {
      prompt: run.prompt,
      negativePrompt: run.negative,
      seeds: [BigInt(run.seed)],
      batchSize: 1,
      guidanceScale: run.guidance,
      guidanceRescale: run.rescale,
      stepCount: run.steps,
      width: run.width,
      height: run.height,
      splitBatch: true,
      syncMode: "full_sync",
      warmupSteps: 0,
      wantLatents: true,
    });
    const measured = relativeL2From(tensors, `run.${run.name}.latents`, result.latents ?? []);
    const what = `latents after ${run.steps} steps of ${run.name}`;
    yield { model, what, measured, allowed: bars.latents, unit: "relative L2" };
    if (!isRecorded(tensors, `run.${run.name}.image`)) continue;
    const { data, stride } = keptOf(tensors, `run.${run.name}.image`);
    const ours = channelsFirst(result.images[0]?.pixels ?? new Uint8Array());
    const levels = maxAbs(everyNth(ours, stride), data.map(levelOf));
    const allowed = bars.levels;
    yield { model, what: `image of ${run.name}`, measured: levels, allowed, unit: "levels" };
  }
}

/** The model with the scheduler of a run: its class, and its settings over the model's. */
function withScheduler(folder: Model, run: Run): Model {
  const name = "scheduler/scheduler_config.json";
  const own = JSON.parse(readFileSync(join(folder.path, name), "utf8"));
  const json = { ...own, ...run.config, _class_name: run.scheduler };
  return { ...folder, scheduler: parseSchedulerConfig(name, json) };
}

/** The decoder's output as a byte of a colour channel. */
function levelOf(value: number): number {
  return Math.round(255 * Math.min(1, Math.max(0, value / 2 + 0.5)));
}

/** RGB triples as three planes. */
function channelsFirst(rgb: Uint8Array): Uint8Array {
  const positionCount = rgb.length / 3;
  return rgb.map((_, i) => rgb[(i % positionCount) * 3 + Math.floor(i / positionCount)]!);
}

function read(name: string): Map<string, Tensor> {
  return readSafetensors(join(fixtures, `${name}.safetensors`));
}

// biome-ignore lint/suspicious/noExplicitAny: fixtures are read where their shape is known
function readJson(name: string): any {
  return JSON.parse(readFileSync(join(fixtures, name), "utf8"));
}
