/**
 * Runs one job of a pipeline: its batches one after the other in an open session. Sends the job's
 * events and collects its result.
 */
import assert from "node:assert/strict";
import { adaptersOf } from "../adapters/plan.ts";
import { stopIfAborted } from "../errors.ts";
import type { Size } from "../image/encoder.ts";
import type { RawImage } from "../image/read.ts";
import { joined } from "../native/joined.ts";
import type { NetworkUses } from "../networks/native.ts";
import type { UpscalerNetwork } from "../networks/network.ts";
import { type Balance, balanceText } from "./balance.ts";
import { controlUses } from "./controls.ts";
import { enlarged } from "./enlarge.ts";
import type { GeneratedImage, Pass, PipelineEvent } from "./events.ts";
import { enlargedResult, type FirstResult, finalSize, secondPass } from "./hires.ts";
import { idleOnDevice } from "./idle-settings.ts";
import { inputPixels } from "./input.ts";
import { ipAdapterUses } from "./ip-adapters.ts";
import { maskStepsOf } from "./mask-steps.ts";
import { noiseCountOf, noiseRequestOf } from "./noise.ts";
import { ImageOrigin } from "./origin.ts";
import type { PreparedPipeline } from "./prepare.ts";
import type { PlannedBatch, PlannedHires, PlannedRequest } from "./request.ts";
import { type ReusedSteps, reusedSteps } from "./reuse.ts";
import type {
  BatchPreview,
  Found,
  ImageRequest,
  ImageResult,
  RankStats,
  Session,
} from "./session.ts";
import { latentsOf } from "./start-latents.ts";
import { startOf } from "./strength.ts";
import type { StageTimings } from "./timings.ts";

/** The part of a session that a job uses; tests pass a fake. */
export type JobSession = Pick<Session, "image" | "upscale" | "close">;

export interface GenerateResult {
  /** In the order of the request; empty where `keepImages` was false. */
  images: GeneratedImage[];
  width: number;
  height: number;
  /**
   * Latents of all images (image, channel, row, column), in the sampler's scale: divide by the
   * VAE's scaling factor before decoding. null unless they were requested.
   */
  latents: Float32Array | null;
  latentShape: ImageResult["latentShape"];
  /** Tensors of noise that each image's generator gave, for a run that goes on from the latents. */
  noiseCount: number;
  /** Description of the first batch's layout over ranks. */
  layout: string;
  /** Whether stale halo rows of the first batch were extrapolated. */
  extrapolateHalos: boolean;
  /** Of the first batch. */
  reusedSteps: ReusedSteps;
  /** As settings: what the first batch found where it was asked to, else as it was asked. */
  balance: string;
  warmupSteps: number | "auto";
  /** Of each rank, all batches together; those of other processes are 0. */
  ranks: RankStats[];
  warnings: string[];
  timings: StageTimings;
}

/**
 * The warm-up ends after the first step whose predicted clean latent has changed by less, relative
 * to its mean size: on the bundled model after as many steps as the default has
 * (`bun run bench bands --parts warmup`).
 */
export const autoWarmupThreshold = 0.05;

const noTimes = { adaptMs: 0, textMs: 0, encodeMs: 0, denoiseMs: 0, decodeMs: 0 };

export interface JobOptions {
  id: string;
  prepared: PreparedPipeline;
  /** Warnings of the pipeline; the job adds its own. */
  warnings: readonly string[];
  keepImages: boolean;
  signal: AbortSignal;
  onEvent: (event: PipelineEvent) => void | Promise<void>;
  /** Steps between previews; 0 for none. */
  previewSteps: number;
  /** What the images are of, where this job finishes those of another. Default: this one. */
  origin?: { prepared: PreparedPipeline; plan: PlannedRequest };
  /** Which of several passes this is. Default: the first, or the only one. */
  pass?: Pass | undefined;
  /** What networks beside the model do, where jobs have it in common. Default: as planned. */
  uses?: NetworkUses | undefined;
}

/** Runs all batches of `plan`. Where a handler fails, the job has ended when this rejects. */
export async function runJob(
  session: JobSession,
  plan: PlannedRequest,
  options: JobOptions,
): Promise<GenerateResult> {
  const { id: jobId, prepared, onEvent, signal } = options;
  let { balance } = plan;
  const found: FoundSettings[] = [];
  const { imageCount } = plan.settings;
  const { width, height } = finalSize(plan);
  const { batches, schedule } = plan;
  const idle = idleOnDevice(plan.settings, prepared.devices.device, prepared.naming);
  const warnings = [...options.warnings, ...plan.warnings, ...idle];
  const source = await sourceOf(plan, prepared);
  const uses = options.uses ?? (await usesOf(plan));
  const finish = plan.hires && (await secondPasses(session, plan.hires, options));
  const start = startedFrom(plan, prepared);
  const { previewSteps } = options;
  const more = { ...source?.request, ...start, uses, previewSteps };
  const inputs = batches.map((batch) => ({ ...requestOf(plan, batch), ...more }));
  const [first] = batches;
  assert(first, "a request without images");
  const layout = first.layout.text;
  for (const message of warnings) await onEvent({ type: "warning", jobId, message });
  await onEvent({ type: "start", jobId, imageCount, layout });

  const images: GeneratedImage[] = [];
  let reused: ReusedSteps | null = null;
  const totals = new Totals();
  const pass = options.pass ?? (plan.hires?.denoises ? { index: 1, count: 2 } : undefined);
  for (const [number, batch] of batches.entries()) {
    stopIfAborted(signal);
    const { range } = batch;
    const input = { ...inputs[number]!, balance };
    const where = { images: range, ...(pass && { pass }) };
    const result = await session.image(input, {
      onProgress: (progress) => onEvent({ type: "progress", jobId, ...progress, ...where }),
      onPreview: (preview) => showPreviews(preview, batch, options),
      signal,
    });
    totals.addWork(result);
    if (plan.hires === null) totals.addLatents(result);
    reused ??= reusedSteps(result.stepParts);
    const own = foundSettings(plan, balance, result.found);
    found.push(own);
    // What one batch has measured holds for the next from its first step on.
    if (result.found.balance) balance = { ...result.found.balance, step: 0, measures: false };
    const origin = originOf(options.origin ?? { prepared, plan }, own);
    for (const [place, { seed }] of batch.images.entries()) {
      stopIfAborted(signal);
      const made = { pixels: result.images[place], latents: latentsAt(result, place) };
      const index = range.first - 1 + place;
      const second = finish && (await finish(index, made));
      if (second?.result) totals.addAll(second.result);
      const raw = second === null ? made.pixels : second.pixels;
      if (raw === undefined) continue;
      const pixels = (await source?.finish(raw)) ?? raw;
      const image = { index, seed, width, height, pixels, origin };
      if (options.keepImages) images.push(image);
      await onEvent({ type: "image", jobId, ...image });
    }
  }
  const { wantLatents } = plan.hires?.plan ?? plan;
  const latents = wantLatents ? joined(totals.latents) : null;
  const { extrapolateHalos } = first;
  const noiseCount = noiseCountOf(plan.settings, schedule, { ...plan, start });
  assert(reused, "a job without steps");
  const how = { layout, extrapolateHalos, reusedSteps: reused, ...found[0]! };
  return { images, width, height, ...totals, latents, noiseCount, ...how, warnings };
}

/** Adds times up. */
export function addTimings(
  sum: StageTimings,
  { adaptMs, textMs, encodeMs, denoiseMs, decodeMs, stepMs }: StageTimings,
): void {
  sum.adaptMs += adaptMs;
  sum.textMs += textMs;
  sum.encodeMs += encodeMs;
  sum.denoiseMs += denoiseMs;
  sum.decodeMs += decodeMs;
  sum.stepMs.push(...stepMs);
}

/** Counts and times add up; memory is that of the largest batch. */
export function addRanks(sums: RankStats[], ranks: readonly RankStats[]): void {
  for (const [i, rank] of ranks.entries()) {
    const sum = sums[i];
    if (sum === undefined) {
      sums.push({ ...rank });
      continue;
    }
    for (const key of Object.keys(rank) as (keyof RankStats)[]) {
      const isMemory = key === "bufferBytes" || key === "scratchBytes";
      sum[key] = isMemory ? Math.max(sum[key], rank[key]) : sum[key] + rank[key];
    }
  }
}

// --- internal ---

/** What networks beside the model do. */
async function usesOf({ controls, ipAdapters, settings }: PlannedRequest): Promise<NetworkUses> {
  return {
    controls: await controlUses(controls, settings),
    ipAdapters: ipAdapterUses(ipAdapters),
  };
}

function originOf(
  { prepared, plan }: NonNullable<JobOptions["origin"]>,
  found: FoundSettings,
): ImageOrigin {
  return new ImageOrigin({ prepared, plan: { ...plan, settings: { ...plan.settings, ...found } } });
}

/** `runSecondPass` of any image: networks beside the model do the same for all. */
async function secondPasses(session: JobSession, hires: PlannedHires, options: JobOptions) {
  const uses = hires.denoises ? await usesOf(hires.plan) : undefined;
  return (index: number, made: FirstResult) =>
    runSecondPass(session, hires, index, made, { ...options, uses });
}

interface SecondResult {
  pixels: Uint8Array | undefined;
  /** null where the image is only enlarged. */
  result: GenerateResult | null;
}

/** Makes the final image of what the first pass `made`. */
async function runSecondPass(
  session: JobSession,
  hires: PlannedHires,
  index: number,
  made: FirstResult,
  options: JobOptions,
): Promise<SecondResult> {
  const { id: jobId, signal, onEvent } = options;
  const pass = { index: 2, count: 2 };
  const images = { first: index + 1, last: index + 1, count: hires.plan.batches.length };
  const where = { images, ...(hires.denoises && { pass }) };
  const enlarge = (image: RawImage, size: Size, network: UpscalerNetwork) =>
    enlarged(session, image, size, {
      ...{ network, signal },
      onProgress: (progress) => onEvent({ type: "progress", jobId, ...progress, ...where }),
    });
  if (!hires.denoises) {
    const { pixels } = await enlargedResult(hires, made, enlarge);
    return { pixels, result: null };
  }
  const plan = await secondPass(hires, index, made, enlarge);
  const result = await runJob(session, plan, {
    ...options,
    ...{ pass, warnings: [] },
    keepImages: true,
    // The job has begun, and its images are given out when they are ready.
    onEvent: async (event) => {
      if (event.type === "progress" || event.type === "preview") await onEvent(event);
    },
  });
  return { pixels: result.images[0]?.pixels, result };
}

/** Of one image of a batch. */
function latentsAt({ latents, latentShape }: ImageResult, place: number) {
  const [, channels, rows, columns] = latentShape;
  const count = channels * rows * columns;
  return latents?.subarray(place * count, (place + 1) * count);
}

/** What the batches and passes of a job add up to. */
class Totals {
  readonly latents: Float32Array[] = [];
  latentShape: ImageResult["latentShape"] = [0, 0, 0, 0];
  readonly ranks: RankStats[] = [];
  readonly timings: StageTimings = { ...noTimes, stepMs: [] };

  addWork({ timings, ranks }: Pick<ImageResult, "timings" | "ranks">): void {
    addTimings(this.timings, timings);
    addRanks(this.ranks, ranks);
  }

  addAll(result: GenerateResult): void {
    this.addWork(result);
    this.addLatents(result);
  }

  addLatents({ latents, latentShape }: Pick<ImageResult, "latents" | "latentShape">): void {
    const [count, ...dimensions] = latentShape;
    this.latentShape = [this.latentShape[0] + count, ...dimensions];
    if (latents !== null) this.latents.push(latents);
  }
}

/** How much the first latent has of what the images start from; null for noise alone. */
function startedFrom(
  { input, latents, continues, schedule, settings }: PlannedRequest,
  { model }: PreparedPipeline,
) {
  if (input === null && latents === null) return null;
  const { compat, strength = 1 } = settings;
  const hasMask = Boolean(input?.mask);
  const start = startOf(schedule, { strength, compat, continues }, hasMask);
  const how = { compat, readsMask: model.kind === "inpainting", config: model.scheduler };
  const maskSteps = hasMask ? maskStepsOf(schedule, how) : null;
  return { ...start, maskSteps, noiseSkip: latents?.noiseCount ?? 0 };
}

/** The image to start from, at the size of the plan. */
async function sourceOf(
  { input, settings }: PlannedRequest,
  { model, naming }: PreparedPipeline,
): Promise<{
  request: Partial<ImageRequest>;
  finish: (pixels: Uint8Array) => Promise<Uint8Array>;
} | null> {
  if (input === null) return null;
  const { finish, ...pixels } = await inputPixels(input, settings, model, naming);
  return { request: pixels, finish };
}

type FoundSettings = Pick<GenerateResult, "balance" | "warmupSteps">;

function foundSettings(
  { settings }: PlannedRequest,
  asked: Balance | null,
  found: Found,
): FoundSettings {
  const dealt = found.balance ?? (asked?.shares.length ? asked : null);
  // Measured and found equal is in equal parts, with every branch on all ranks.
  const balance = dealt
    ? balanceText(dealt)
    : settings.balance === "auto"
      ? "off"
      : settings.balance;
  return { balance, warmupSteps: found.warmupSteps ?? settings.warmupSteps };
}

/** One event per image of the batch. */
async function showPreviews(
  { images, ...preview }: BatchPreview,
  { range }: PlannedBatch,
  { id: jobId, onEvent }: JobOptions,
): Promise<void> {
  for (const [place, pixels] of images.entries()) {
    const index = range.first - 1 + place;
    await onEvent({ type: "preview", jobId, index, ...preview, pixels });
  }
}

function requestOf(
  plan: PlannedRequest,
  { images, range, guidance, extrapolateHalos }: PlannedBatch,
): ImageRequest {
  const { settings, schedule, latents, wantLatents, wantImages } = plan;
  return {
    ...settings,
    ...warmupOf(settings),
    balance: null,
    prompt: images.flatMap(({ tokens }) => tokens.prompts),
    negative: guidance ? images.flatMap(({ tokens }) => tokens.negatives) : null,
    stepSets: images[0]?.tokens.stepSets,
    emphasis: emphasisOf(plan),
    empty: plan.emptyTokens,
    guidanceScale: images.map(({ guidanceScale }) => guidanceScale),
    promptWeights: images.map(({ tokens }) => tokens.weights),
    guided: guidance,
    injected: plan.embeddings,
    adapters: adaptersOf(images[0]?.loras ?? []),
    ...noiseRequestOf(settings, schedule, images),
    initNoiseSigma: schedule.initNoiseSigma,
    seeds: images.map(({ seed }) => seed),
    extrapolateHalos,
    ...plan.reuse,
    winograd: settings.quality !== "exact",
    latents: latents && latentsOf(latents, range),
    ...{ wantLatents, wantImages },
  };
}

/** A threshold where the number is to be found. */
function warmupOf({ warmupSteps, syncMode, stepCount }: PlannedRequest["settings"]) {
  if (warmupSteps !== "auto") return { warmupSteps };
  const warmupThreshold = syncMode === "full_sync" ? 0 : autoWarmupThreshold;
  return { warmupSteps: stepCount, warmupThreshold };
}

/** How weights are applied; those of ComfyUI need the empty prompt. */
function emphasisOf({ emptyTokens, settings }: PlannedRequest): ImageRequest["emphasis"] {
  if (emptyTokens !== null) return "interpolate";
  // Where weights are not read, there are none to restore the mean of.
  return settings.emphasis === "no_norm" ? "no_norm" : "original";
}
