/**
 * A session of the native library with a loaded model, in terms of model folders and pixels. It
 * generates one batch at a time from tokens, sampler steps and seeds. `pipeline.ts` uses it; tests
 * and benches that compare batches open their own sessions.
 */
import type { RawImage } from "../image/read.ts";
import type { Model } from "../models/model.ts";
import * as abi from "../native/abi.ts";
import { type Adapter, adapterBytes } from "../native/adapters.ts";
import { type Hooks, NativeHandle, type TokenPair, tokenBytes } from "../native/handle.ts";
import { bytesOf } from "../native/library.ts";
import { type TestHooks, testHookBytes } from "../native/test-hooks.ts";
import { type NetworkUses, networkStructs, noUses, upscalerStruct } from "../networks/native.ts";
import type { UpscalerNetwork } from "../networks/network.ts";
import { completed } from "../samplers/coefficients.ts";
import type { StepCoefficients } from "../schedule.ts";
import type { SyncMode } from "../settings/names.ts";
import type { Balance } from "./balance.ts";
import { maskStepBytes } from "./mask-steps.ts";
import { handleOptionsOf, type OpenOptions } from "./open-options.ts";
import { cleanMixesOf, previewPixels } from "./preview.ts";
import type { Progress } from "./progress.ts";
import type { StageTimings } from "./timings.ts";
import { tileLatent } from "./vae-tiling.ts";

/** Statistics of one rank in the denoising loop; bytes are those received from other ranks. */
export interface RankStats {
  computeMs: number;
  waitMs: number;
  haloBytes: number;
  statisticsBytes: number;
  keysValuesBytes: number;
  gatherBytes: number;
  /** Receive buffers of the UNet's exchange. */
  bufferBytes: number;
  /** Peak of the arena, including `bufferBytes`. */
  scratchBytes: number;
  /** CUDA graphs captured in this batch, and graph launches. */
  graphsCaptured: number;
  graphsReplayed: number;
  /** Rows of the latent that went through the UNet, of each branch, image and step. */
  unetRows: number;
}

/** Deep features and the outputs of cross-attention in a step. */
interface StepParts {
  deep: keyof typeof abi.Part;
  cross: keyof typeof abi.Part;
}

/** Settings passed to the library under the same names: a new one needs no line here. */
type PassedSettings = Partial<Omit<abi.Request, MadeHere>>;
type MadeHere =
  | ("prompts" | "negatives" | "seeds" | "steps" | "adapters")
  | ("injected" | "injected2" | "stepSets" | "empty" | "cleanMixes" | "noisePlaces")
  | ("variationSeeds" | "stepReuse" | "image" | "mask" | "latents")
  | ("latentMask" | "conditionMask" | "maskSteps")
  | ("networks" | "controls" | "ipAdapters")
  | ("rankShares" | "balanceStep" | "measuresBalance");

export interface ImageRequest extends PassedSettings {
  width: number;
  height: number;
  /**
   * One for all images of the batch or one per image, like the next two. All have the same number
   * of chunks. With `stepSets` one per set and image, those of an image side by side; with
   * `promptWeights` so many for each prompt that an image combines.
   */
  prompt: TokenPair | readonly TokenPair[];
  /** The set of prompts that each step reads; absent where there is one. */
  stepSets?: readonly number[] | null | undefined;
  /** RGB of the size of the image to start from, and its mask, grey. */
  image?: Uint8Array | null | undefined;
  mask?: Uint8Array | null | undefined;
  /** NCHW, to start from instead; beside an image and a mask the first alone. */
  latents?: Float32Array | null | undefined;
  /** Of the latent (`latent-mask.ts`); the second for a model that reads it. */
  latentMask?: Float32Array | null | undefined;
  conditionMask?: Float32Array | null | undefined;
  /** With a mask; see `mask-steps.ts`. */
  maskSteps?: readonly abi.MaskStep[] | null | undefined;
  /** What each step takes from earlier ones; absent where each computes everything. */
  reuse?: readonly abi.StepReuse[] | undefined;
  /** The empty prompt, where `emphasis` is "interpolate"; else absent or null. */
  empty?: TokenPair | null | undefined;
  /** null = an embedding of zeros. Read only with guidance. */
  negative: TokenPair | null | readonly (TokenPair | null)[];
  guidanceScale: number | readonly number[];
  /** Of each image the prompts that it combines, as many in all. Default: one of weight 1. */
  promptWeights?: readonly (readonly number[])[] | undefined;
  /** Whether the negative branch is computed. Default: where a guidance scale is above 1. */
  guided?: boolean | undefined;
  /** Rows of each text encoder for token ids beyond its vocabulary. */
  injected?: { rows: Float32Array; rows2: Float32Array } | undefined;
  steps: StepCoefficients[];
  initNoiseSigma: number;
  /** One per image of the batch. */
  seeds: readonly bigint[];
  /** Each image's place in the batch of `noiseBatch` that its noise is made with. Default: 0. */
  noisePlaces?: readonly number[];
  /** One per image; absent or empty without `variationStrength`. */
  variationSeeds?: readonly bigint[];
  syncMode: SyncMode;
  /** Synchronous steps after the first. */
  warmupSteps: number;
  splitBatch: boolean;
  /** How rows are dealt. Default: in equal parts. */
  balance?: Balance | null | undefined;
  /** Whether one rank decodes in blended tiles, as diffusers does, to save memory. */
  vaeTiling?: boolean;
  /**
   * Convolutions on the CPU in f32 with fewer multiplications (Winograd): faster, other bits,
   * larger errors. Default: false.
   */
  winograd?: boolean | undefined;
  /** Whether stale halo rows are extrapolated (default). */
  extrapolateHalos?: boolean | undefined;
  /**
   * Whether full steps wait for the deep features' exchange, where other steps reuse them. Default:
   * false.
   */
  freshDeep?: boolean | undefined;
  /** Whether the result includes the decoder's output in f32. */
  wantDecoded?: boolean;
  /** All that change the weights for this batch, in the order of their application. */
  adapters?: readonly Adapter[] | undefined;
  /** What networks beside the model do. */
  uses?: NetworkUses | undefined;
  testHooks?: TestHooks;
  wantLatents: boolean;
  /** Of a refiner's images and of their negative prompts. Default: 6 and 2.5. */
  aestheticScore?: number | undefined;
  negativeAestheticScore?: number | undefined;
  /** Whether images are decoded (default). */
  wantImages?: boolean | undefined;
}

/** What the images of a batch will be, by the estimate of the newest step. */
export interface BatchPreview {
  /** Finished steps. */
  stepIndex: number;
  /** In pixels: of the image with TAESD, else of the latent. */
  width: number;
  height: number;
  /** RGB bytes of each image. */
  images: Uint8Array[];
}

export interface ImageHooks {
  /** Called where the request has `previewSteps`; a late poll skips previews. */
  onPreview?: ((preview: BatchPreview) => void | Promise<void>) | undefined;
  onProgress?: ((progress: Progress) => void | Promise<void>) | undefined;
  signal?: AbortSignal | undefined;
}

export interface UpscaleRequest {
  /** RGB. */
  image: RawImage;
  network: UpscalerNetwork;
  /** Pixels of a side of its tiles. */
  tileSize: number;
  /** Whether the result has the network's output in f32. Default: false. */
  wantDecoded?: boolean;
}

export interface UpscaleResult {
  image: RawImage;
  /** (height, width, 3) of -1 to 1, not clamped; null unless it was requested. */
  decoded: Float32Array | null;
}

export interface Found {
  /** null where rows stayed in equal parts. */
  balance: Pick<Balance, "shares" | "step"> | null;
  warmupSteps: number | null;
}

export interface ImageResult {
  /** RGB bytes of each seed, height × width × 3; none without `wantImages`. */
  images: Uint8Array[];
  width: number;
  height: number;
  /** NCHW in the sampler's scale, before division by the VAE's scaling factor. */
  latents: Float32Array | null;
  latentShape: [number, number, number, number];
  /** The decoder's output (n, 3, height, width), not clamped; null unless it was requested. */
  image: Float32Array | null;
  timings: StageTimings;
  ranks: RankStats[];
  /** What the batch found where it was asked to: shares of rows, synchronous steps. */
  found: Found;
  /** What each step computed, kept and took from an earlier one. */
  stepParts: StepParts[];
  /** Memory in use on the first GPU, by all processes; 0 on the CPU. */
  deviceBytes: number;
  /** Weights that adapters made since the session was opened, and host memory of those kept. */
  merged: { weightCount: number; bytes: number };
}

/** Loads a model. Rejects with `BasedXLError`; see `library.ts` for the codes. */
export async function openSession(options: OpenOptions): Promise<Session> {
  const { model, onProgress, signal } = options;
  const handle = await NativeHandle.open(handleOptionsOf(options), {
    signal,
    onProgress: ({ copiedBytes, copyBytes }) => {
      const loadFraction = shareOf(copiedBytes, copyBytes);
      return onProgress?.({ ...nothingDone, loadFraction });
    },
  });
  for (const warning of [...model.warnings, ...handle.warnings()]) options.onWarning?.(warning);
  for (const note of handle.weightNotes()) options.onWeightNote?.(note);
  return new NativeSession(handle, model, options.rankCount);
}

/**
 * Loads nothing, and rejects as `openSession` does where the model and its first request do not fit
 * beside `besideBytes` of another session; else the bytes that they need.
 */
export async function checkSession(options: OpenOptions, besideBytes: number): Promise<number> {
  const { signal } = options;
  return await NativeHandle.check({ ...handleOptionsOf(options), besideBytes }, { signal });
}

export interface Session {
  /** Ranks of all processes. */
  readonly rankCount: number;
  /** Generates a batch. Rejects with "cancelled" soon after `signal`, "not-finite", "no-memory". */
  image(request: ImageRequest, hooks?: ImageHooks): Promise<ImageResult>;
  /** Enlarges an image as often as its network does. Rejects as `image`. */
  upscale(request: UpscaleRequest, hooks?: ImageHooks): Promise<UpscaleResult>;
  /** Cancels the running batch and frees everything. */
  close(): Promise<void>;
}

/** Steps as structs of the library. */
export function stepsToBytes(steps: readonly StepCoefficients[]): Uint8Array {
  const bytes = new Uint8Array(steps.length * abi.sizeOfStepCoefficients);
  const view = new DataView(bytes.buffer);
  const nothing = { sample: 0, auxiliary: 0, modelOutputs: [], noise: 0 };
  steps.forEach((step, i) => {
    abi.writeStepCoefficients(view, i * abi.sizeOfStepCoefficients, {
      ...completed(step),
      auxiliary: step.auxiliary ?? nothing,
      updatesAuxiliary: Number(step.auxiliary !== null),
      replacesOutput: Number(step.replacesOutput ?? false),
      samplesNoise: Number(step.samplesNoise),
    });
  });
  return bytes;
}

// --- internal ---

const nothingDone = { stage: "load", stepIndex: 0, stepCount: 0, adaptFraction: 0 } as const;

class NativeSession implements Session {
  constructor(
    private readonly handle: NativeHandle,
    private readonly model: Model,
    readonly rankCount: number,
  ) {}

  async image(request: ImageRequest, hooks: ImageHooks = {}): Promise<ImageResult> {
    const { width, height, steps } = request;
    const imageCount = request.seeds.length;
    const seeds = new BigUint64Array(request.seeds);
    const variationSeeds = new BigUint64Array(request.variationSeeds ?? []);
    const rankShares = new Int32Array(request.balance?.shares ?? []);
    const noisePlaces = new Int32Array(request.noisePlaces ?? []);
    const { guided, branchCount, scales } = guidanceOf(request);
    const prompts = perImage(request.prompt, imageCount);
    const negatives = guided ? perImage(request.negative, imageCount) : [];
    const promptBytes = tokenBytes(prompts);
    const negativeBytes = tokenBytes(negatives);
    const emptyBytes = tokenBytes(request.empty ? [request.empty] : []);
    const stepSets = new Int32Array(request.stepSets ?? []);
    const reuseBytes = reuseToBytes(request.reuse ?? []);
    const hookBytes = testHookBytes(request.testHooks);
    const adapters = adapterBytes(request.adapters ?? []);
    const { keepAlive, ...networks } = networkStructs(request.uses ?? noUses);
    const { vaeFactor } = this.model;
    const stepBytes = stepsToBytes(steps);
    const source = sourceOf(request);
    const cleanMixes = needsMixes(request) ? cleanMixesOf(steps, this.model.scheduler) : null;
    const done = await this.handle.run(
      {
        ...{ extrapolateHalos: true, freshDeep: false },
        ...present(request),
        kind: "image",
        latentRows: height / vaeFactor,
        latentWidth: width / vaeFactor,
        branchCount,
        guidanceScales: bytesOf(scales),
        ...outputsOf(request),
        vaeTileLatent: request.vaeTiling ? tileLatent(this.model) : 0,
        hooks: bytesOf(hookBytes),
        ...{ adapters: bytesOf(adapters.bytes), ...networks },
        ...injectedOf(request),
        seeds: bytesOf(seeds),
        noisePlaces: bytesOf(noisePlaces),
        variationSeeds: bytesOf(variationSeeds),
        ...dealtBy(request.balance, rankShares),
        steps: bytesOf(stepBytes),
        cleanMixes: bytesOf(cleanMixes),
        prompts: bytesOf(promptBytes),
        negatives: bytesOf(negativeBytes),
        empty: bytesOf(emptyBytes),
        stepSets: bytesOf(stepSets),
        stepReuse: bytesOf(reuseBytes),
        ...source.structs,
        ...timeIdsOf(this.model, request),
      },
      [
        stepBytes,
        cleanMixes,
        ...[seeds, noisePlaces, variationSeeds],
        ...[rankShares, scales],
        prompts,
        negatives,
        promptBytes,
        negativeBytes,
        request.empty,
        emptyBytes,
        ...[stepSets, reuseBytes, hookBytes],
        ...[adapters, keepAlive],
        ...[request.injected, source],
      ],
      this.imageHooks(hooks, request),
    );
    return this.resultOf(request, done);
  }

  async upscale(request: UpscaleRequest, hooks: ImageHooks = {}): Promise<UpscaleResult> {
    const { image, network, tileSize, wantDecoded = false } = request;
    const { bytes, keepAlive } = upscalerStruct(network);
    // A job has a latent's shape, whatever it does.
    const side = this.model.sizeMultiple / this.model.vaeFactor;
    await this.handle.run(
      {
        kind: "upscale",
        ...{ latentRows: side, latentWidth: side },
        ...{ upscaleRows: image.height, upscaleWidth: image.width, upscaleTile: tileSize },
        wantsDecoded: Number(wantDecoded),
        networks: bytesOf(bytes),
        image: bytesOf(image.pixels),
      },
      [keepAlive, image.pixels],
      {
        signal: hooks.signal,
        onProgress: ({ stage, stepIndex, stepCount, copiedBytes, copyBytes }) => {
          const loadFraction = shareOf(copiedBytes, copyBytes);
          const progress = { stage, stepIndex, stepCount, loadFraction, adaptFraction: 1 };
          return hooks.onProgress?.(progress);
        },
      },
    );
    const size = { width: image.width * network.scale, height: image.height * network.scale };
    return {
      image: { ...size, pixels: new Uint8Array(this.handle.read("rgb")) },
      decoded: wantDecoded ? new Float32Array(this.handle.read("decoded")) : null,
    };
  }

  close(): Promise<void> {
    return this.handle.close();
  }

  // --- internal ---

  private resultOf(request: ImageRequest, done: abi.Progress): ImageResult {
    const { width, height } = request;
    const imageCount = request.seeds.length;
    const { vaeFactor, vae } = this.model;
    const rgb = new Uint8Array(this.handle.read("rgb"));
    const imageBytes = rgb.length / imageCount;
    const decoded = request.wantImages === false ? [] : request.seeds;
    return {
      images: decoded.map((_, i) => rgb.subarray(i * imageBytes, (i + 1) * imageBytes)),
      width,
      height,
      latents: request.wantLatents ? new Float32Array(this.handle.read("latents")) : null,
      image: request.wantDecoded ? new Float32Array(this.handle.read("decoded")) : null,
      latentShape: [imageCount, vae.latentChannels, height / vaeFactor, width / vaeFactor],
      timings: {
        adaptMs: milliseconds(done.adaptNs),
        textMs: milliseconds(done.textNs),
        encodeMs: milliseconds(done.encodeNs),
        denoiseMs: milliseconds(done.denoiseNs),
        decodeMs: milliseconds(done.decodeNs),
        stepMs: Array.from(new BigUint64Array(this.handle.read("step_ns")), milliseconds),
      },
      ranks: ranksOf(this.handle.read("rank_stats")),
      found: this.found(),
      stepParts: partsOf(new Uint32Array(this.handle.read("step_parts"))),
      deviceBytes: Number(done.deviceBytes),
      merged: {
        weightCount: Number(done.mergedWeightCount),
        bytes: Number(done.mergedBytes),
      },
    };
  }

  private found(): Found {
    const dealt = Array.from(new BigUint64Array(this.handle.read("dealt")), Number);
    const warmup = Array.from(new BigUint64Array(this.handle.read("warmup")), Number);
    const [step = 0, ...shares] = dealt;
    return { balance: dealt.length > 0 ? { step, shares } : null, warmupSteps: warmup[0] ?? null };
  }

  private imageHooks(
    { onProgress, onPreview, signal }: ImageHooks,
    { steps, seeds, width, height }: ImageRequest,
  ): Hooks {
    const stepCount = steps.length;
    const { vaeFactor, taesd, vae } = this.model;
    const factor = taesd === undefined ? vaeFactor : 1;
    const size = { width: width / factor, height: height / factor };
    let shownStep = 0;
    return {
      signal,
      onProgress: async (progress) => {
        const { stage, stepIndex, previewStep, adaptedBytes, adaptBytes } = progress;
        const adaptFraction = shareOf(adaptedBytes, adaptBytes);
        const { copiedBytes, copyBytes } = progress;
        const loadFraction = shareOf(copiedBytes, copyBytes);
        await onProgress?.({ stage, stepIndex, stepCount, loadFraction, adaptFraction });
        if (onPreview === undefined || previewStep === shownStep || previewStep === 0) return;
        shownStep = previewStep;
        const read = this.handle.read("preview");
        const pixels = taesd
          ? new Uint8Array(read)
          : previewPixels(new Float32Array(read), vae.latentChannels);
        const each = pixels.length / seeds.length;
        const images = seeds.map((_, place) => pixels.subarray(place * each, (place + 1) * each));
        await onPreview({ stepIndex: previewStep, ...size, images });
      },
    };
  }
}

function shareOf(done: bigint, whole: bigint): number {
  return Number(done) / Math.max(1, Number(whole));
}

/** Drops undefined values, so that defaults stay. */
function present<T extends object>(request: T): T {
  return Object.fromEntries(
    Object.entries(request).filter(([, value]) => value !== undefined),
  ) as T;
}

function outputsOf({ wantLatents, wantImages = true, wantDecoded = false }: ImageRequest) {
  return {
    wantsLatents: Number(wantLatents),
    skipsDecode: Number(!wantImages),
    wantsDecoded: Number(wantDecoded),
  };
}

/** diffusers' add_time_ids; of a refiner the last number is the aesthetic score. */
function timeIdsOf(
  model: Model,
  { width, height, aestheticScore = 6, negativeAestheticScore = 2.5 }: ImageRequest,
) {
  const sizes = [height, width, 0, 0];
  if (model.kind !== "refiner") {
    const timeIds = [...sizes, height, width];
    return { timeIds, negativeTimeIds: timeIds };
  }
  return {
    timeIds: [...sizes, aestheticScore],
    negativeTimeIds: [...sizes, negativeAestheticScore],
  };
}

/** What the images start from. */
function sourceOf(request: ImageRequest) {
  const { image = null, mask = null, latents = null } = request;
  const { latentMask = null, conditionMask = null } = request;
  const maskSteps = maskStepBytes(request.maskSteps ?? []);
  const values = { image, mask, latents, latentMask, conditionMask, maskSteps };
  const structs = {
    ...{ image: bytesOf(image), mask: bytesOf(mask), latents: bytesOf(latents) },
    ...{ latentMask: bytesOf(latentMask), conditionMask: bytesOf(conditionMask) },
    maskSteps: bytesOf(maskSteps),
  };
  return { values, structs };
}

function injectedOf({ injected }: ImageRequest): Pick<abi.Request, "injected" | "injected2"> {
  return { injected: bytesOf(injected?.rows ?? null), injected2: bytesOf(injected?.rows2 ?? null) };
}

function dealtBy(balance: Balance | null | undefined, rankShares: Int32Array<ArrayBuffer>) {
  return {
    rankShares: bytesOf(rankShares),
    balanceStep: balance?.step ?? 0,
    measuresBalance: Number(balance?.measures ?? false),
  };
}

/** The branches, and of each image a scale for every prompt that it combines. */
function guidanceOf(request: ImageRequest) {
  const imageCount = request.seeds.length;
  const { promptWeights = Array<number[]>(imageCount).fill([1]) } = request;
  const imageScales = perImage(request.guidanceScale, imageCount);
  const { guided = imageScales.some((scale) => scale > 1) } = request;
  const scales = new Float32Array(
    imageScales.flatMap((scale, i) => promptWeights[i]!.map((weight) => weight * scale)),
  );
  return { guided, branchCount: guided ? 1 + promptWeights[0]!.length : 1, scales };
}

/** One value per image. */
function perImage<T extends object | number | null>(value: T | readonly T[], count: number): T[] {
  return Array.isArray(value) ? [...value] : Array<T>(count).fill(value as T);
}

/** Whether previews are shown, or steps decide by the predicted image. */
function needsMixes({ previewSteps, warmupThreshold, reuse = [] }: ImageRequest): boolean {
  return (
    Boolean(previewSteps) ||
    Boolean(warmupThreshold) ||
    reuse.some(({ deep }) => deep === "adaptive")
  );
}

function reuseToBytes(reuse: readonly abi.StepReuse[]): Uint8Array {
  const bytes = new Uint8Array(reuse.length * abi.sizeOfStepReuse);
  const view = new DataView(bytes.buffer);
  for (const [i, each] of reuse.entries()) {
    abi.writeStepReuse(view, i * abi.sizeOfStepReuse, each);
  }
  return bytes;
}

const partNames = Object.keys(abi.Part) as (keyof typeof abi.Part)[];

/** Two numbers per step. */
function partsOf(numbers: Uint32Array): StepParts[] {
  return Array.from({ length: numbers.length / 2 }, (_, i) => ({
    deep: partNames[numbers[2 * i]!]!,
    cross: partNames[numbers[2 * i + 1]!]!,
  }));
}

function ranksOf(bytes: ArrayBuffer): RankStats[] {
  const view = new DataView(bytes);
  const count = bytes.byteLength / abi.sizeOfRankStats;
  return Array.from({ length: count }, (_, i) => {
    const counts = abi.readRankStats(view, i * abi.sizeOfRankStats);
    return {
      computeMs: milliseconds(counts.computeNs),
      waitMs: milliseconds(counts.waitNs),
      haloBytes: Number(counts.haloRowBytes),
      statisticsBytes: Number(counts.statisticsBytes),
      keysValuesBytes: Number(counts.keysValuesBytes),
      gatherBytes: Number(counts.gatherBytes),
      bufferBytes: Number(counts.bufferBytes),
      scratchBytes: Number(counts.scratchBytes),
      graphsCaptured: Number(counts.graphsCaptured),
      graphsReplayed: Number(counts.graphsReplayed),
      unetRows: Number(counts.unetRows),
    };
  });
}

function milliseconds(nanoseconds: bigint): number {
  return Number(nanoseconds) / 1e6;
}
