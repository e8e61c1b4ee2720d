/**
 * Requests to a pipeline, and the plan of a request: every value checked, the model's defaults
 * filled in, images grouped into batches. Settings come from `settings/table.ts`: a new one needs
 * no line here.
 */
import assert from "node:assert/strict";
import { LoraPlanner, type PlannedLora } from "../adapters/plan.ts";
import type { RecipeRequest } from "../adapters/recipes.ts";
import type { EmbeddingTable } from "../embeddings.ts";
import { badOption } from "../errors.ts";
import type { Size } from "../image/encoder.ts";
import type { ImageSource } from "../image/read.ts";
import { checkHasInput } from "../models/kind.ts";
import type { Model } from "../models/model.ts";
import type { TokenPair } from "../native/handle.ts";
import type { UpscalerNetwork } from "../networks/network.ts";
import type { Schedule } from "../schedule.ts";
import { type CompatKey, withCompat } from "../settings/compat.ts";
import { defaultOf } from "../settings/setting.ts";
import {
  type ImageKey,
  imageKeys,
  type KeysWhere,
  perImageKeys,
  type RequestSettings,
  type ResolvedSettings,
  requestKeys,
  settingOf,
  settings,
} from "../settings/table.ts";
import { asProperty, checkSetting, type Naming } from "../settings/values.ts";
import { type Balance, balanceOf } from "./balance.ts";
import { type ControlRequest, type PlannedControl, planControls } from "./controls.ts";
import { checkGuidance, hasUnguided, withGuidanceWindow } from "./guidance-window.ts";
import { idleWarnings } from "./idle-settings.ts";
import { embeddingsOf } from "./image-embeddings.ts";
import { withLoras } from "./image-loras.ts";
import { fitTogether, type ImageTokens, textsOf, withTokens } from "./image-tokens.ts";
import { checkInput, type PlannedInput, planInput, type ReadInput } from "./input.ts";
import { type IpAdapterRequest, type PlannedIpAdapter, planIpAdapters } from "./ip-adapters.ts";
import type { InterpolateMode } from "./latent-resize.ts";
import { extrapolatesByDefault, type Layout, layoutOf, warmupStepsMin } from "./layout.ts";
import { checkNoise, inNoiseOrder, unusedNoise } from "./noise.ts";
import { noImages, type ReadImages } from "./read-images.ts";
import { type RequestFiles, requestFiles } from "./request-files.ts";
import { fewStepsWarning, type Reuse, withReuse } from "./reuse.ts";
import { type StepSpan, samplingOf, strangerWarnings } from "./sampling.ts";
import { checkLatentCount, checkLatents, type Latents } from "./start-latents.ts";
import { tilingWarning } from "./vae-tiling.ts";
import { zeroSnrWarnings } from "./zero-snr.ts";

type PerImage = (typeof perImageKeys)[number];

/**
 * Images to generate. An absent (or undefined) value has the model's default, else the table's. A
 * value that may differ between images is one for all, or an array with one entry per image; arrays
 * must have the same length.
 */
export interface GenerateRequest
  extends Omit<RequestSettings, PerImage | "seed" | "imageCount" | SourceKey> {
  /** See `promptSyntax`; a warning names what is not read. */
  prompt?: string | undefined | readonly string[];
  /** For the second text encoder. Default: the prompt. */
  prompt2?: string | undefined | readonly string[];
  /** "" is encoded; null is none: zeros or "", as the model's config says. */
  negativePrompt?: string | null | undefined | readonly (string | null)[];
  negativePrompt2?: string | undefined | readonly string[];
  /** Guidance is off at 1 and below. */
  guidanceScale?: number | undefined | readonly number[];
  /**
   * One per image, 0 to 2^63-1; with the `noiseOrder` "batch" the first is that of all. Default:
   * random 32-bit seeds, for one image or each prompt.
   */
  seeds?: readonly bigint[] | undefined;
  /** To start from; see `image/read.ts`. */
  image?: ImageSource | undefined;
  /** What of it is made anew: where this is white. */
  mask?: ImageSource | undefined;
  /** Hints of `controlnet`, one for all or one for each. */
  controlImage?: ControlRequest["controlImage"];
  /** What `ipAdapter` sees: all of them for one adapter, of several one each. */
  ipImage?: IpAdapterRequest["ipImage"];
  /**
   * To start from instead; sizes are then those of the latents. Beside an image with a mask, which
   * decides what stays.
   */
  latents?: Latents | undefined;
  /**
   * The part of the noise levels that `latents` have had, above 0 and below 1: the run goes on from
   * there without new noise, and `strength` is not read. Default: noise as for an image.
   */
  denoisingStart?: number | undefined;
  /** Whether the result includes the final latents. Default false. */
  wantLatents?: boolean | undefined;
  /** False decodes no images (diffusers' output_type "latent"). Default true. */
  wantImages?: boolean | undefined;
}

type SourceKey = ImageKey;
type RequestKey = Exclude<KeysWhere<{ scope: "request" }>, SourceKey>;

/** The images of a batch, counted from 1 within the request. */
export interface ImageRange {
  first: number;
  last: number;
  count: number;
}

/** A request with every value filled in and checked. */
export interface PlannedRequest {
  /** As it was asked. */
  request: GenerateRequest;
  /** All settings; those that differ between images are the first image's. */
  settings: ResolvedSettings<RequestKey> & { seed: bigint };
  schedule: Schedule;
  /** The steps that it takes. */
  span: StepSpan;
  /** The image to start from; null for none, like latents to start from. */
  input: PlannedInput | null;
  latents: Latents | null;
  /** Whether these have had steps before. */
  continues: boolean;
  /** The refiner's part; null without one. */
  refined: PlannedRequest | null;
  /** Null for one pass. */
  hires: PlannedHires | null;
  /** Networks that steer the images. */
  controls: readonly PlannedControl[];
  /** What shows images to the model as prompts. */
  ipAdapters: readonly PlannedIpAdapter[];
  /** The images that it names. */
  read: ReadImages;
  /** What steps take from earlier ones; null where each computes everything. */
  reuse: Reuse | null;
  /** How rows are dealt; null for equal parts. */
  balance: Balance | null;
  wantLatents: boolean;
  wantImages: boolean;
  batches: PlannedBatch[];
  /** All LoRAs of its images, each file with its scales once. */
  loras: PlannedLora[];
  /** All embeddings that its prompts mention. */
  embeddings: EmbeddingTable;
  /** The empty prompt, where weights interpolate from it; else null. */
  emptyTokens: TokenPair | null;
  warnings: string[];
}

/** What enlarges between two passes: the latent, or the decoded image. */
export type HiresUpscaler =
  | { kind: "latent"; name: string; mode: InterpolateMode }
  | { kind: "lanczos"; name: string }
  | { kind: "model"; name: string; network: UpscalerNetwork };

/** The second pass of a request (`hires.ts`). */
export interface PlannedHires {
  /** Of all images, each in a batch of its own. */
  plan: PlannedRequest;
  /** False for images that are only enlarged: their `plan` has the size. */
  denoises: boolean;
  /** Of the images of the first pass. */
  firstSize: Size;
  upscaler: HiresUpscaler;
}

/** One image of a request. */
export interface PlannedImage {
  seed: bigint;
  /** Its place in the batch that its noise is made with. */
  noisePlace: number;
  /** null for no variation. */
  variationSeed: bigint | null;
  /** Without tags. */
  prompt: string;
  /** null = none: zeros or "", as the model's config says. */
  negativePrompt: string | null;
  /** For the second text encoder; undefined where it reads the same. */
  prompt2: string | undefined;
  negativePrompt2: string | undefined;
  guidanceScale: number;
  tokens: ImageTokens;
  /** The same array for images that can be computed together. */
  loras: readonly PlannedLora[];
}

export interface Batch {
  images: PlannedImage[];
  /** Their indices in the request. */
  range: ImageRange;
  /** Whether both guidance branches are computed. */
  guidance: boolean;
}

export interface PlannedBatch extends Batch {
  layout: Layout;
  extrapolateHalos: boolean;
}

/**
 * Fills in and checks. Throws "bad-option" naming the setting as `naming` does, "bad-model" for a
 * schedule that cannot be followed and for a model that needs more than text, "bad-weights" for a
 * file that is no LoRA or embedding for the model.
 */
export function planRequest(
  request: GenerateRequest,
  model: Model,
  rankCount: number,
  naming: Naming = asProperty,
  files: RequestFiles = requestFiles(),
  read: ReadImages = noImages,
): PlannedRequest {
  const warnings: string[] = [];
  const { given, input, latents } = withInput(request, read.input, model, naming);
  checkNetworks(given, read, naming);
  const { defaults } = model;
  const { width, height } = sizesOf(given, model, naming);
  const sampling = samplingOf(given, model, rankCount, naming);
  const { scheduler } = sampling.settings;
  const stepCount = sampling.takenCount;
  const window = withGuidanceWindow(sampling.schedule, given, stepCount, naming);
  const { schedule, reuse } = withReuse(window, given, { stepCount, model, naming });
  warnings.push(...sampling.warnings, ...fewStepsWarning(given, reuse, naming));
  const warmupSteps = warmupOf(given, { stepCount, reuse, hasLatents: latents !== null, naming });
  const guidanceDefault = sampling.preset?.guidanceScale ?? defaults.guidanceScale ?? 5;
  const ordered = inNoiseOrder(imagesOf(request, guidanceDefault, model, naming), given, naming);
  const { images: asked, noiseBatch } = ordered;
  checkLatentCount(latents, asked.length);
  const { guidanceScale, prompt, negativePrompt, prompt2, negativePrompt2, seed } = asked[0]!;
  const timestepSpacing = sampling.settings.timestepSpacing ?? model.scheduler.timestepSpacing;
  const wanted = { stepCount, scheduler, timestepSpacing, guidanceScale };
  const texts = readPrompts(asked, given, model, { wanted, schedule, files, naming });
  const { images, loras, embeddings, emptyTokens } = texts;
  warnings.push(...texts.filesWarnings);
  warnings.push(...strangerWarnings(sampling, loras, model, naming));
  const complete = {
    ...given,
    ...sampling.settings,
    ...{ width, height, warmupSteps, imageCount: images.length },
    ...{ splitBatch: splitsBatch(given), batchSize: batchSizeOf(given, images.length) },
    ...{ guidanceScale, prompt, negativePrompt: negativePrompt ?? undefined, seed },
    ...{ prompt2, negativePrompt2, noiseBatch },
  };
  checkNoise(complete, schedule, naming);
  warnings.push(...unusedNoise(complete, request, schedule, naming));
  checkGuidance(images, schedule, complete, naming);
  if (images[0]?.tokens.isGuided !== true) warnings.push(...unusedOf(complete, request, naming));
  warnings.push(...zeroSnrWarnings(model.scheduler, schedule, naming));
  warnings.push(...texts.textWarnings);
  if (complete.vaeTiling) {
    if (rankCount > 1) {
      throw badOption(`${naming("vaeTiling")} is for one rank: several share the decode, exactly.`);
    }
    warnings.push(tilingWarning(model, width, height, naming("vaeTiling")));
  }
  checkExchange(complete, naming);
  const counts = { rankCount, stepCount: schedule.steps.length };
  const balance = balanceOf(complete, counts, naming);
  const place = placementOf({ ...complete, balance }, schedule, model, { rankCount, naming });
  const batches = batchesOf(images, complete.batchSize).map(place);
  warnings.push(...idleWarnings(complete, { given, reuse, batches, naming }));
  return {
    ...{ request, settings: complete, schedule, span: sampling.span },
    ...{ input, latents, continues: given.denoisingStart !== undefined },
    ...networksOf(read, schedule.steps.length),
    ...{ refined: null, hires: null, reuse, balance, batches },
    ...{ wantLatents: request.wantLatents ?? false, wantImages: request.wantImages ?? true },
    ...{ loras, embeddings, emptyTokens },
    warnings,
  };
}

/** The seeds of `count` images, each one above the one before. */
export function seedsFrom(first: bigint, count: number): bigint[] {
  return Array.from({ length: count }, (_, index) => first + BigInt(index));
}

/**
 * Cuts `images` into batches of at most `batchSize`, in order. Images with guidance and without,
 * with different LoRAs, another number of prompts or of their chunks are not computed together: an
 * image is the same alone and in a batch. (A1111 pads the shorter prompt of a batch with copies of
 * its last state, ComfyUI has one prompt per batch.)
 */
export function batchesOf(images: readonly PlannedImage[], batchSize: number): Batch[] {
  const batches: Batch[] = [];
  const count = images.length;
  for (const [index, image] of images.entries()) {
    const guidance = image.tokens.isGuided;
    const last = batches.at(-1);
    const isAlike =
      last?.guidance === guidance &&
      last.images[0]?.loras === image.loras &&
      last.images.every(({ tokens }) => fitTogether(tokens, image.tokens));
    if (isAlike && last.images.length < batchSize) {
      last.images.push(image);
      last.range.last = index + 1;
      continue;
    }
    const range = { first: index + 1, last: index + 1, count };
    batches.push({ images: [image], range, guidance });
  }
  return batches;
}

// --- internal ---

/** Networks come with the images that they read. */
function checkNetworks(given: CheckedSettings, read: ReadImages, naming: Naming): void {
  if (given.controlnet.length !== read.controls.length) {
    throw badOption(`${naming("controlnet")} needs a hint image, ${naming("controlImage")}.`);
  }
  if (given.ipAdapter.length === read.ipAdapters.length) return;
  throw badOption(`${naming("ipAdapter")} needs an image, ${naming("ipImage")}.`);
}

/** The settings with those that follow from the image to start from. */
function withInput(
  request: GenerateRequest,
  source: ReadInput | null,
  model: Model,
  naming: Naming,
): {
  given: CheckedSettings & {
    denoisingStart?: number | undefined;
    isSecondPass?: boolean | undefined;
  };
  input: PlannedInput | null;
  latents: Latents | null;
} {
  assert(request.image === undefined || source !== null, "an image that was not read");
  const checked = checkedSettings(request, naming);
  const { latents, ...sizes } = checkLatents({ ...request, mask: source?.mask }, model, naming);
  const { denoisingStart } = request;
  checkHasInput(model, source ?? (latents && { mask: null }));
  checkInput(request, source, { hasLatents: latents !== null, naming });
  if (source === null && latents === null) return { given: checked, input: null, latents };
  const strength = checked.strength ?? (source?.mask ? 1 : 0.75);
  const isSecondPass = (source ?? latents)?.isFirstPass;
  const given = { ...checked, ...sizes, strength, denoisingStart, isSecondPass };
  if (source === null) return { given, input: null, latents };
  const { input, ...size } = planInput(source, given, model);
  return { given: { ...given, ...size }, input, latents };
}

/** The networks beside the model, with their steps. */
function networksOf(read: ReadImages, stepCount: number) {
  return {
    read,
    controls: planControls(read.controls, stepCount),
    ipAdapters: planIpAdapters(read.ipAdapters, stepCount),
  };
}

type CheckedSettings = ReturnType<typeof checkedSettings>;

/** The settings shared by all images, checked, with the table's defaults. */
function checkedSettings(request: GenerateRequest, naming: Naming) {
  const perImage: readonly string[] = [...perImageKeys, "seed", ...imageKeys];
  const values: Readonly<Record<string, unknown>> = { ...request, imageCount: undefined };
  const shared = requestKeys.filter((key) => !perImage.includes(key));
  const checked = Object.fromEntries(
    shared.map((key) => {
      const setting = settingOf(key);
      const value = values[key];
      if (value !== undefined) return [key, checkSetting(key, value, naming)];
      return [key, defaultOf(setting)];
    }),
  ) as unknown as Omit<
    Required<RequestSettings>,
    PerImage | "seed" | SourceKey | CompatKey | keyof ModelDefaults
  > &
    Partial<ModelDefaults>;
  return withCompat(checked);
}

interface Reading {
  wanted: RecipeRequest;
  schedule: Schedule;
  files: RequestFiles;
  naming: Naming;
}

/** Takes LoRAs and embeddings out of the prompts, and makes tokens of the rest. */
function readPrompts(
  asked: readonly Omit<PlannedImage, "loras" | "tokens">[],
  given: CheckedSettings,
  model: Model,
  { wanted, schedule, files, naming }: Reading,
) {
  const { stepCount } = wanted;
  const { usesBothBranches } = schedule;
  const evaluations = schedule.steps.length;
  const steps = {
    evaluations,
    total: stepCount * Math.max(1, Math.round(evaluations / stepCount)),
  };
  const planner = new LoraPlanner(model, (file) => files.find("lora", file));
  const tagged = withLoras(asked, given.loras, planner, wanted, naming);
  const loras = planner.all();
  const sources = { choices: given.embeddings, loras, files, flag: naming("embeddings") };
  const texts = textsOf(tagged.images, given.promptSyntax, steps, usesBothBranches);
  const { embeddings, warnings } = embeddingsOf(texts, model, sources);
  const encoding = { embeddings, rules: given, naming, steps, usesBothBranches };
  const tokenized = withTokens(tagged.images, model, encoding);
  const filesWarnings = [...tagged.warnings, ...warnings];
  return { ...tokenized, loras, embeddings, filesWarnings, textWarnings: tokenized.warnings };
}

type ModelDefaults = Pick<
  ResolvedSettings<RequestKey>,
  "width" | "height" | "stepCount" | "scheduler" | "warmupSteps" | "syncMode"
>;

/** The layout of a batch over ranks, with guidance and without. */
function placementOf(
  complete: ModelDefaults &
    Pick<CheckedSettings, "splitBatch" | "extrapolateHalos"> &
    Pick<PlannedRequest, "balance">,
  { steps }: Schedule,
  { vaeFactor, sizeMultiple }: Model,
  ranks: { rankCount: number; naming: Naming },
): (batch: Batch) => PlannedBatch {
  const { splitBatch, syncMode, height, balance } = complete;
  const warmupSteps = complete.warmupSteps === "auto" ? warmupStepsMin : complete.warmupSteps;
  const rowUnit = sizeMultiple / vaeFactor;
  const latentRows = height / vaeFactor;
  const known = new Map<number, Pick<PlannedBatch, "layout" | "extrapolateHalos">>();
  return (batch) => {
    const { guidance, images } = batch;
    const promptCount = images[0]!.tokens.weights.length;
    const before = known.get(guidance ? promptCount : 0);
    if (before) return { ...batch, ...before };
    const shape = { ...ranks, guidance, promptCount, latentRows, rowUnit, vaeFactor };
    const layout = layoutOf({ ...shape, splitBatch, balance, hasWindow: hasUnguided({ steps }) });
    const patches = layout.unguidedPatches ?? layout.patches;
    const how = { syncMode, steps, patches, rowUnit, warmupSteps };
    const extrapolateHalos = complete.extrapolateHalos ?? extrapolatesByDefault(how);
    known.set(guidance ? promptCount : 0, { layout, extrapolateHalos });
    return { ...batch, layout, extrapolateHalos };
  };
}

function imagesOf(
  request: GenerateRequest,
  guidanceDefault: number,
  { defaults }: Model,
  naming: Naming,
): Omit<PlannedImage, "loras" | "tokens" | "noisePlace" | "variationSeed">[] {
  const prompt = request.prompt ?? defaults.prompt;
  if (prompt === undefined) {
    throw badOption(
      `Say what the image shows: ${naming("prompt")} is missing, and the model has none of its \
own.`,
    );
  }
  const { negativePrompt = null, prompt2, negativePrompt2 } = request;
  const guidanceScale = request.guidanceScale ?? guidanceDefault;
  const counts = [prompt, prompt2, negativePrompt, negativePrompt2, guidanceScale]
    .filter((value) => Array.isArray(value))
    .map((values: readonly unknown[]) => values.length);
  const seeds = request.seeds ?? randomSeeds(counts[0] ?? 1);
  const count = seeds.length;
  const { min, max } = settings.imageCount;
  if (count < min || count > max) {
    throw badOption(`A request has ${min} to ${max} images, not ${count}.`);
  }
  if (counts.some((other) => other !== count)) {
    throw badOption(
      `The request has ${count} seeds, and arrays of prompts or guidance scales with ` +
        `${counts.join(", ")} entries: give one value for all images, or one for each.`,
    );
  }
  return seeds.map((seed, index) => {
    const negative = entryOf(negativePrompt, index);
    const second = prompt2 === undefined ? undefined : entryOf(prompt2, index);
    const negative2 = negativePrompt2 === undefined ? undefined : entryOf(negativePrompt2, index);
    return {
      seed: checkSetting("seed", seed, naming),
      prompt: checkSetting("prompt", entryOf(prompt, index), naming),
      negativePrompt: negative === null ? null : checkSetting("negativePrompt", negative, naming),
      prompt2: second && checkSetting("prompt2", second, naming),
      negativePrompt2: negative2 && checkSetting("negativePrompt2", negative2, naming),
      guidanceScale: checkSetting("guidanceScale", entryOf(guidanceScale, index), naming),
    };
  });
}

function entryOf<T extends string | number | null>(value: T | readonly T[], index: number): T {
  return Array.isArray(value) ? (value as readonly T[])[index]! : (value as T);
}

/** Random 32-bit seeds: torch's CPU generator reads only 32 bits of a seed. */
function randomSeeds(count: number): bigint[] {
  return [...crypto.getRandomValues(new Uint32Array(count))].map(BigInt);
}

/** Warnings about settings that were given but need guidance, which is off. */
function unusedOf(
  complete: PlannedRequest["settings"],
  request: GenerateRequest,
  naming: Naming,
): string[] {
  const why = `it needs ${naming("guidanceScale")} above 1, not ${complete.guidanceScale}`;
  return requestKeys.flatMap((key) => {
    const setting = settingOf(key);
    // What another setting brings is not of the user's making.
    const values = setting.modelDefault ? request : complete;
    const value = (values as Readonly<Record<string, unknown>>)[key];
    const isUnused = setting.needsGuidance && value !== defaultOf(setting);
    return isUnused ? [`${naming(key)} is not used: ${why}.`] : [];
  });
}

/** Images that decide by themselves which steps they reuse are computed alone. */
function batchSizeOf(
  { batchSize, deepCacheThreshold }: Pick<CheckedSettings, "batchSize" | "deepCacheThreshold">,
  imageCount: number,
): number {
  return deepCacheThreshold === undefined ? Math.min(batchSize, imageCount) : 1;
}

/** Rows alone can be dealt by speed. */
function splitsBatch({ splitBatch, balance }: CheckedSettings): boolean {
  return splitBatch && balance === "off";
}

function checkExchange(
  { compressExchange, syncMode }: Pick<CheckedSettings, "compressExchange"> & ModelDefaults,
  naming: Naming,
): void {
  if (compressExchange === "none" || syncMode !== "full_sync") return;
  throw badOption(
    `${naming("compressExchange")} ${compressExchange} does not go with ${naming("syncMode")} \
full_sync, which is exact.`,
  );
}

/**
 * The warm-up where those of other patches are as old as the last full step, as a share of the
 * steps: after it the error of patches is above that without reuse.
 */
const cachedWarmup = 0.7;

/** DistriFusion's default of 4, or all the steps where there are fewer. */
function warmupOf(
  { warmupSteps: given, freshDeep }: Pick<CheckedSettings, "warmupSteps" | "freshDeep">,
  {
    stepCount,
    reuse,
    hasLatents,
    naming,
  }: { stepCount: number; reuse: Reuse | null; hasLatents: boolean; naming: Naming },
): number | "auto" {
  const isOld = reuse !== null && reuse.outerSkips > 0 && !freshDeep;
  const otherwise = isOld ? Math.ceil(cachedWarmup * stepCount) : 4;
  const warmup = given ?? Math.min(otherwise, stepCount);
  if (warmup === "auto" || warmup <= stepCount) return warmup;
  // The steps before may have had them.
  if (hasLatents) return stepCount;
  throw badOption(
    `${naming("warmupSteps")} must be from 0 to the number of steps, ${stepCount}, not ${warmup}.`,
  );
}

/** The model's own where the request leaves them out. */
function sizesOf(
  given: { width?: number | undefined; height?: number | undefined },
  model: Model,
  naming: Naming,
): { width: number; height: number } {
  const { defaults, nativeSize } = model;
  const width = given.width ?? defaults.width ?? nativeSize.width;
  const height = given.height ?? defaults.height ?? nativeSize.height;
  return {
    width: sizeOf("width", width, model, naming),
    height: sizeOf("height", height, model, naming),
  };
}

function sizeOf(
  key: "width" | "height",
  size: number,
  { sizeMultiple: unit }: Model,
  naming: Naming,
): number {
  const max = Math.floor(settings[key].max / unit) * unit;
  if (size >= unit && size <= max && size % unit === 0) return size;
  const near = Math.min(max, Math.max(unit, Math.round(size / unit) * unit));
  throw badOption(
    `${naming(key)} must be a multiple of ${unit} from ${unit} to ${max} pixels for this model, \
not ${size}: the nearest is ${near}.`,
  );
}
