/**
 * What a caller asks of a pipeline, and what it comes to once the model has filled in its defaults
 * and every value was checked.
 */

import { BasedXLError } from "../errors.ts";
import type { ModelFolder } from "../models/folder.ts";
import type { GpuOptions } from "../native/handle.ts";
import { makeSchedule, type Schedule, samplerOfModel } from "../schedule.ts";
import { limits, seedMax } from "../settings/limits.ts";
import {
  type CpuDtype,
  type Rng,
  rngs,
  type Scheduler,
  type SyncMode,
  schedulers,
  syncModes,
  type TimestepSpacing,
  timestepSpacings,
} from "../settings/names.ts";
import { type Batch, batchesOf, type PlannedImage } from "./batches.ts";
import { extrapolatesByDefault } from "./halo-extrapolation.ts";
import { type Layout, layoutOf } from "./layout.ts";

/**
 * Images to generate. What is absent (or undefined) has the model's default, then the one named
 * here. A value that may differ from image to image is one for all, or an array with one entry per
 * image; arrays must agree on the number of images.
 */
export interface GenerateRequest {
  /** What the images show; SDXL reads the first 77 tokens, and a warning names the rest. */
  prompt: string | readonly string[];
  /** What they should not show. "" is encoded; null is none, as the model's config says. */
  negativePrompt?: string | null | undefined | readonly (string | null)[];
  /** One image each, 0 to 2^63-1. Default: random 32-bit seeds, for one image or each prompt. */
  seeds?: readonly bigint[] | undefined;
  /** Generator that the seeds initialise: torch's on the CPU (default), or on a CUDA device. */
  rng?: Rng | undefined;
  /** Images computed together, 1 to 8; the last batch may be smaller. Default 1. */
  batchSize?: number | undefined;
  /** 0 to 100; 1 and below is no guidance. Default 5. */
  guidanceScale?: number | undefined | readonly number[];
  /** diffusers' `guidance_rescale`, 0 to 1. Default 0. */
  guidanceRescale?: number | undefined;
  /** Default 50. */
  stepCount?: number | undefined;
  /** Pixels, a multiple of the model's unit (32 for SDXL). Default: the model's own size. */
  width?: number | undefined;
  height?: number | undefined;
  /** Default: the one that the model's config names, else Euler with a warning. */
  scheduler?: Scheduler | undefined;
  /** Default: as the model's config says, like `timestepSpacing`. */
  useKarrasSigmas?: boolean | undefined;
  timestepSpacing?: TimestepSpacing | undefined;
  /** Decode in blended tiles, as diffusers does: less memory, not quite the same image. */
  vaeTiling?: boolean | undefined;
  /** With an even number of ranks each guidance branch has ranks of its own. Default true. */
  splitBatch?: boolean | undefined;
  /** What patches read of each other after the warm-up. Default "corrected_async_gn". */
  syncMode?: SyncMode | undefined;
  /** Synchronous steps after the first, which always is. Default 4, or all of fewer. */
  warmupStepCount?: number | undefined;
  /** Whether stale halo rows are extrapolated. Default: see halo-extrapolation.ts. */
  extrapolateHalos?: boolean | undefined;
  /** Whether the result holds the final latents. Default false. */
  wantLatents?: boolean | undefined;
}

/** A request with the pipeline that it needs: what the command makes of its flags. */
export interface SampleRequest extends GenerateRequest {
  model: ModelFolder;
  prompt: string;
  negativePrompt: string | null;
  seeds: readonly bigint[];
  batchSize: number;
  guidanceScale: number;
  stepCount: number;
  width: number;
  height: number;
  scheduler: Scheduler;
  splitBatch: boolean;
  syncMode: SyncMode;
  warmupStepCount: number;
  rankCount: number;
  /** 0 = one per core. */
  threadCount: number;
  /** null or absent = the CPU. */
  gpu?: GpuOptions | null;
  /** Type of the CPU's products; default f32. */
  dtype?: CpuDtype;
}

/** A request whose every value is there and was checked. */
export interface PlannedRequest {
  width: number;
  height: number;
  imageCount: number;
  rng: Rng;
  guidanceRescale: number;
  schedule: Schedule;
  syncMode: SyncMode;
  warmupStepCount: number;
  splitBatch: boolean;
  vaeTiling: boolean;
  wantLatents: boolean;
  batches: PlannedBatch[];
  warnings: string[];
}

export interface PlannedBatch extends Batch {
  layout: Layout;
  extrapolateHalos: boolean;
}

/** Fills in and checks. Throws "bad-option" naming the field, "bad-model" for a bad schedule. */
export function planRequest(
  request: GenerateRequest,
  model: ModelFolder,
  rankCount: number,
): PlannedRequest {
  const { defaults, nativeSize } = model;
  const warnings: string[] = [];
  const width = sizeOf("width", request.width ?? defaults.width ?? nativeSize.width, model);
  const height = sizeOf("height", request.height ?? defaults.height ?? nativeSize.height, model);
  const stepCount = request.stepCount ?? defaults.steps ?? 50;
  const scheduler = checkName("scheduler", request.scheduler, schedulers);
  const schedule = makeSchedule(scheduler ?? schedulerOf(model, warnings), model.scheduler, {
    stepCount,
    useKarrasSigmas: request.useKarrasSigmas,
    timestepSpacing: checkName("timestepSpacing", request.timestepSpacing, timestepSpacings),
  });
  const vaeTiling = request.vaeTiling ?? false;
  if (vaeTiling && rankCount > 1) {
    throw badOption("vaeTiling is for one rank: several share the decode, exactly.");
  }
  const images = imagesOf(request, defaults.guidanceScale ?? 5);
  const batchSize = inRange("batchSize", request.batchSize ?? 1, limits["batch-size"]);
  const warmupStepCount = request.warmupStepCount ?? Math.min(4, stepCount);
  inRange("warmupStepCount", warmupStepCount, { min: 0, max: stepCount });
  const shared = {
    width,
    height,
    imageCount: images.length,
    rng: checkName("rng", request.rng, rngs) ?? "cpu",
    guidanceRescale: within("guidanceRescale", request.guidanceRescale ?? 0, "guidance-rescale"),
    schedule,
    syncMode: checkName("syncMode", request.syncMode, syncModes) ?? "corrected_async_gn",
    warmupStepCount,
    splitBatch: request.splitBatch ?? true,
    vaeTiling,
    wantLatents: request.wantLatents ?? false,
    warnings,
  };
  const place = placementOf(shared, request.extrapolateHalos, model, rankCount);
  const batches = batchesOf(images, batchSize).map((batch) => ({ ...batch, ...place(batch) }));
  return { ...shared, batches };
}

// --- internal ---

function badOption(message: string): BasedXLError {
  return new BasedXLError("bad-option", message);
}

/** How ranks share a batch: one answer with guidance and one without. */
function placementOf(
  shared: Omit<PlannedRequest, "batches">,
  extrapolateHalos: boolean | undefined,
  { vaeFactor, sizeMultiple }: ModelFolder,
  rankCount: number,
): (batch: Batch) => Pick<PlannedBatch, "layout" | "extrapolateHalos"> {
  const { splitBatch, syncMode, schedule, warmupStepCount } = shared;
  const rowUnit = sizeMultiple / vaeFactor;
  const latentRows = shared.height / vaeFactor;
  const known = new Map<boolean, Pick<PlannedBatch, "layout" | "extrapolateHalos">>();
  return ({ guidance }) => {
    const before = known.get(guidance);
    if (before) return before;
    const layout = layoutOf({ rankCount, guidance, splitBatch, latentRows, rowUnit, vaeFactor });
    const { patches } = layout;
    const how = { syncMode, rows: schedule.rows, patches, rowUnit, warmupSteps: warmupStepCount };
    const place = { layout, extrapolateHalos: extrapolateHalos ?? extrapolatesByDefault(how) };
    known.set(guidance, place);
    return place;
  };
}

function imagesOf(request: GenerateRequest, guidanceDefault: number): PlannedImage[] {
  const { prompt, negativePrompt = null, guidanceScale = guidanceDefault } = request;
  const counts = [prompt, negativePrompt, guidanceScale]
    .filter((value) => Array.isArray(value))
    .map((values) => values.length);
  const seeds = request.seeds ?? randomSeeds(counts[0] ?? 1);
  const count = seeds.length;
  if (count < 1 || count > limits["num-images"].max) {
    throw badOption(`A request has 1 to ${limits["num-images"].max} images, not ${count}.`);
  }
  if (counts.some((other) => other !== count)) {
    throw badOption(
      `The request has ${count} seeds, and arrays of prompts or guidance scales with ` +
        `${counts.join(", ")} entries: give one value for all images, or one for each.`,
    );
  }
  return seeds.map((seed, index) => {
    if (typeof seed !== "bigint" || seed < 0n || seed > seedMax) {
      throw badOption(`A seed is a bigint from 0 to ${seedMax}, not ${seed}.`);
    }
    return {
      seed,
      prompt: entryOf(prompt, index),
      negativePrompt: entryOf(negativePrompt, index),
      guidanceScale: within("guidanceScale", entryOf(guidanceScale, index), "guidance-scale"),
    };
  });
}

function entryOf<T extends string | number | null>(value: T | readonly T[], index: number): T {
  return Array.isArray(value) ? (value as readonly T[])[index]! : (value as T);
}

/** Torch's CPU generator reads 32 bits of a seed, so that more would be longer to type in vain. */
function randomSeeds(count: number): bigint[] {
  return [...crypto.getRandomValues(new Uint32Array(count))].map(BigInt);
}

/** The sampler that the model's config names, or Euler where this version has none of that name. */
function schedulerOf({ scheduler }: ModelFolder, warnings: string[]): Scheduler {
  const { name, replaced } = samplerOfModel(scheduler);
  if (!replaced) return name;
  warnings.push(
    `The model asks for ${scheduler.className}, which this version lacks: euler takes its place.`,
  );
  return name;
}

function sizeOf(name: "width" | "height", size: number, { sizeMultiple }: ModelFolder): number {
  const max = Math.floor(limits[name].max / sizeMultiple) * sizeMultiple;
  if (size >= sizeMultiple && size <= max && size % sizeMultiple === 0) return size;
  throw badOption(
    `${name} must be a multiple of ${sizeMultiple} from ${sizeMultiple} to ${max}, not ${size}.`,
  );
}

function inRange(name: string, value: number, { min, max }: { min: number; max: number }): number {
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  throw badOption(`${name} must be a whole number from ${min} to ${max}, not ${value}.`);
}

function within(name: string, value: number, limit: keyof typeof limits): number {
  const { min, max } = limits[limit];
  if (value >= min && value <= max) return value;
  throw badOption(`${name} must be a number from ${min} to ${max}, not ${value}.`);
}

function checkName<Name extends string>(
  field: string,
  name: Name | undefined,
  names: readonly Name[],
): Name | undefined {
  if (name === undefined || names.includes(name)) return name;
  throw badOption(`${field} must be one of ${names.join(", ")}, not ${JSON.stringify(name)}.`);
}
