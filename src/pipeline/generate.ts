/**
 * Images from one checked request: prompt to tokens, sampler to rows, one session to pixels.
 * It neither prints nor writes files nor reads flags: whoever calls it decides about those.
 */
import assert from "node:assert/strict";
import { escaped, stopIfAborted } from "../errors.ts";
import type { ModelFolder } from "../models/folder.ts";
import type { GpuOptions } from "../native/handle.ts";
import type {
  ImageRequest,
  ImageResult,
  OpenOptions,
  Progress,
  Session,
  TokenPair,
} from "../native/session.ts";
import type { StepCoefficients } from "../schedule.ts";
import { makeSchedule } from "../schedule.ts";
import type { CpuDtype, Rng, Scheduler, SyncMode, TimestepSpacing } from "../settings/names.ts";
import { extrapolatesByDefault } from "./halo-extrapolation.ts";
import { layoutOf } from "./layout.ts";

/** What to draw. Sizes are pixels and multiples of the model's unit; see `options.ts`. */
export interface GenerateRequest {
  model: ModelFolder;
  prompt: string;
  /** null = none was asked for: zeros, or the empty prompt, as the model's config says. */
  negativePrompt: string | null;
  /** One image each, in this order; at least one. */
  seeds: readonly bigint[];
  /** What the seeds start; default "cpu". */
  rng?: Rng;
  /** Images computed together; the last batch may be smaller. */
  batchSize: number;
  guidanceScale: number;
  /** How far guided outputs are brought back to the deviation of the positive ones; default 0. */
  guidanceRescale?: number;
  stepCount: number;
  width: number;
  height: number;
  scheduler: Scheduler;
  /** undefined = as the model's config says, like `timestepSpacing`. */
  useKarrasSigmas: boolean | undefined;
  timestepSpacing: TimestepSpacing | undefined;
  rankCount: number;
  /** 0 = one per core. */
  threadCount: number;
  /** null or absent = the CPU. */
  gpu?: GpuOptions | null;
  /** Decode in blended tiles: for one rank. */
  vaeTiling?: boolean;
  /** Default f32. */
  dtype?: CpuDtype;
  /** Whether old halo rows are moved on; undefined = where it mostly helps, see prediction.ts. */
  extrapolateHalos?: boolean;
  /** False keeps both guidance branches on every rank. */
  splitBatch: boolean;
  syncMode: SyncMode;
  /** Synchronous steps after the first, which always is. */
  warmupStepCount: number;
  wantLatents: boolean;
}

/** What drawing needs of a session; tests bring one that only takes notes. */
export type DrawingSession = Pick<Session, "rankCountUsed" | "layout" | "image" | "close">;

/** One image of the request. */
export interface Drawn {
  seed: bigint;
  /** RGB bytes, height × width × 3. */
  pixels: Uint8Array;
}

/** A session's progress, and with which images of the request, counted from 1. */
export interface DrawingProgress extends Progress {
  images: { first: number; last: number; count: number };
}

/** What the outside brings; a server may hand out sessions it keeps open. */
export interface GenerateDependencies {
  openSession(options: OpenOptions): Promise<DrawingSession>;
  onProgress?: (progress: DrawingProgress) => void;
  /** Takes each image, in order, once it is drawn; drawing goes on when the promise resolves. */
  onImage?: (image: Drawn) => void | Promise<void>;
  /** Called at once for what the user should know early; the result lists all of them again. */
  onWarning?: (warning: string) => void;
  /** Called when the session is open: how the work is shared. */
  onLayout?: (layout: string) => void;
  signal?: AbortSignal;
}

export interface GenerateTimings {
  loadMs: number;
  textMs: number;
  denoiseMs: number;
  decodeMs: number;
  /** Of every step of every batch. */
  stepMs: number[];
}

export interface GenerateResult {
  /** In the order of the seeds; empty where `onImage` took them, so that memory stays flat. */
  images: Drawn[];
  width: number;
  height: number;
  /** Of all images in one: (image, channel, row, column). */
  latents: ImageResult["latents"];
  latentShape: ImageResult["latentShape"];
  rankCountUsed: number;
  /** In words, such as "4 ranks = 2 guidance branches × 2 patches (64 + 64 rows)". */
  layout: string;
  /** What was asked for, or what was decided where nothing was. */
  extrapolateHalos: boolean;
  warnings: string[];
  timings: GenerateTimings;
}

/**
 * Draws the images, batch by batch in one session. Rejects with `BasedXLError`: "bad-option" or
 * "bad-model" before weights load, "cancelled" within a second of `signal`, else what the session
 * or `onImage` reports. The session is closed whatever happens.
 */
export async function generate(
  request: GenerateRequest,
  dependencies: GenerateDependencies,
): Promise<GenerateResult> {
  const { model, width, height, guidanceScale, rankCount, threadCount, splitBatch } = request;
  const { vaeTiling } = request;
  const { onProgress, signal } = dependencies;
  const warnings: string[] = [];
  const warn = (warning: string) => {
    warnings.push(warning);
    dependencies.onWarning?.(warning);
  };
  const guidance = guidanceScale > 1;

  const prompt = encodePrompt(model, request.prompt, "prompt", warn);
  const negative = guidance ? encodeNegative(request, warn) : null;
  const { rows, initNoiseSigma } = makeSchedule(request.scheduler, model.scheduler, request);
  const batches = batchesOf(request.seeds, request.batchSize);

  stopIfAborted(signal);
  const loadStart = performance.now();
  const session = await dependencies.openSession({
    model,
    rankCount,
    threadCount,
    gpu: request.gpu,
    splitBatch,
    imageCount: batches[0]?.seeds.length ?? 1,
    vaeTiling,
    dtype: request.dtype,
    width,
    height,
    guidance,
    onProgress: batches[0] && progressHook(onProgress, batches[0]),
    signal,
  });
  try {
    const loadMs = performance.now() - loadStart;
    const { rankCountUsed, layout } = session;
    dependencies.onLayout?.(layout);
    const extrapolateHalos = request.extrapolateHalos ?? extrapolatesHere(request, rows);
    const asked = {
      width,
      height,
      prompt,
      negative,
      guidanceScale,
      guidanceRescale: request.guidanceRescale,
      rng: request.rng,
      rows,
      initNoiseSigma,
      syncMode: request.syncMode,
      warmupSteps: request.warmupStepCount,
      extrapolateHalos,
      splitBatch,
      vaeTiling,
      wantLatents: request.wantLatents,
    };
    const { timings, ...drawn } = await drawBatches(session, asked, batches, dependencies);
    const told = { width, height, rankCountUsed, layout, extrapolateHalos, warnings };
    return { ...drawn, ...told, timings: { loadMs, ...timings } };
  } finally {
    session.close();
  }
}

/** The middle of the sorted times, in milliseconds; 0 when there are none. */
export function medianMs(times: readonly number[]): number {
  const sorted = [...times].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? 0) + upper) / 2;
}

// --- internal ---

function extrapolatesHere(request: GenerateRequest, rows: StepCoefficients[]): boolean {
  const { model, rankCount, splitBatch, syncMode, guidanceScale, height } = request;
  const rowUnit = model.sizeMultiple / model.vaeFactor;
  const latentRows = height / model.vaeFactor;
  const guidance = guidanceScale > 1;
  const { patches } = layoutOf({ rankCount, guidance, splitBatch, latentRows, rowUnit });
  return extrapolatesByDefault({
    syncMode,
    rows,
    patches,
    rowUnit,
    warmupSteps: request.warmupStepCount,
  });
}

type Warn = (warning: string) => void;

/**
 * Without a negative prompt SDXL's configs ask for zeros instead of the embedding of ""
 * (`force_zeros_for_empty_prompt`); an explicit "" is encoded, as diffusers does.
 */
function encodeNegative({ model, negativePrompt }: GenerateRequest, warn: Warn): TokenPair | null {
  if (negativePrompt === null && model.forceZerosForEmptyPrompt) return null;
  return encodePrompt(model, negativePrompt ?? "", "negative prompt", warn);
}

function encodePrompt(model: ModelFolder, text: string, what: string, warn: Warn): TokenPair {
  const first = model.tokenizer.encode(text);
  const second = model.tokenizer2.encode(text);
  // The two vocabularies may cut at different places: the longer rest is what a reader lacks.
  const cuts = [first.truncated, second.truncated];
  const dropped = cuts.reduce((longest, cut) => (cut.length > longest.length ? cut : longest));
  if (dropped !== "") {
    const shown =
      dropped.length > 200 ? `${dropped.slice(0, 120)} ... ${dropped.slice(-60)}` : dropped;
    warn(`The ${what} is longer than ${first.ids.length} tokens; left out: "${escaped(shown)}".`);
  }
  return { ids: first.ids, ids2: second.ids, endIndex2: second.endIndex };
}

interface Batch {
  seeds: bigint[];
  images: DrawingProgress["images"];
}

function batchesOf(seeds: readonly bigint[], batchSize: number): Batch[] {
  const batches: Batch[] = [];
  const count = seeds.length;
  for (let start = 0; start < count; start += batchSize) {
    const last = Math.min(start + batchSize, count);
    const images = { first: start + 1, last, count };
    batches.push({ seeds: seeds.slice(start, last), images });
  }
  return batches;
}

function progressHook(onProgress: GenerateDependencies["onProgress"], { images }: Batch) {
  if (onProgress === undefined) return undefined;
  return (progress: Progress) => onProgress({ ...progress, images });
}

type DrawnBatches = Pick<GenerateResult, "images" | "latents" | "latentShape"> & {
  timings: Omit<GenerateTimings, "loadMs">;
};

async function drawBatches(
  session: DrawingSession,
  asked: Omit<ImageRequest, "seeds">,
  batches: readonly Batch[],
  { onProgress, onImage, signal }: GenerateDependencies,
): Promise<DrawnBatches> {
  const images: Drawn[] = [];
  const latentParts: Float32Array[] = [];
  let latentShape: ImageResult["latentShape"] = [0, 0, 0, 0];
  const timings: DrawnBatches["timings"] = { textMs: 0, denoiseMs: 0, decodeMs: 0, stepMs: [] };
  for (const batch of batches) {
    stopIfAborted(signal);
    const hooks = { onProgress: progressHook(onProgress, batch), signal };
    const result = await session.image({ ...asked, seeds: batch.seeds }, hooks);
    const [count, channels, rows, columns] = result.latentShape;
    latentShape = [latentShape[0] + count, channels, rows, columns];
    if (result.latents !== null) latentParts.push(result.latents);
    timings.textMs += result.timings.textMs;
    timings.denoiseMs += result.timings.denoiseMs;
    timings.decodeMs += result.timings.decodeMs;
    timings.stepMs.push(...result.timings.stepMs);
    for (const [index, seed] of batch.seeds.entries()) {
      stopIfAborted(signal);
      const pixels = result.images[index];
      assert(pixels, `image ${index} of a batch of ${batch.seeds.length}`);
      if (onImage) await onImage({ seed, pixels });
      else images.push({ seed, pixels });
    }
  }
  return {
    images,
    latents: asked.wantLatents ? joined(latentParts) : null,
    latentShape,
    timings,
  };
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const whole = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}
