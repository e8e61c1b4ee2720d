/**
 * From the flags of `sample` to a request that needs no further checks. Everything that can be
 * wrong with a number, a name or a size is said here, with what would work, before weights load.
 *
 * An absent flag stays `undefined` until the model is known: models bring defaults of their own.
 */
import type { ParsedArgs } from "citty";
import { BasedXLError, escaped } from "../errors.ts";
import type { ModelFolder } from "../models/folder.ts";
import { layoutOf } from "../pipeline/layout.ts";
import type { SampleRequest } from "../pipeline/request.ts";
import { tilingWarning } from "../pipeline/vae-tiling.ts";
import { schedulerNameOfClass } from "../schedule.ts";
import { flagLabel, suggestion } from "../terminal/flags.ts";
import { limits, seedMax } from "./limits.ts";
import {
  type Device,
  type Dtype,
  devices,
  dtypes,
  type Rng,
  rngs,
  type Scheduler,
  type SyncMode,
  schedulers,
  syncModes,
  type TimestepSpacing,
  type Transport,
  timestepSpacings,
  transports,
} from "./names.ts";
import type { SampleFlags } from "./sample-flags.ts";
import { sampleFlags } from "./sample-flags.ts";

/** The flags, checked as far as they can be without a model. */
export interface SampleOptions {
  prompt: string | undefined;
  /** "" is a negative prompt without words; undefined is none. They may give different images. */
  negativePrompt: string | undefined;
  /** Of the first image; the others' follow it. */
  seed: bigint;
  seedIsRandom: boolean;
  rng: Rng;
  imageCount: number;
  /** Images computed together. */
  batchSize: number;
  guidanceScale: number | undefined;
  guidanceRescale: number;
  stepCount: number | undefined;
  width: number | undefined;
  height: number | undefined;
  scheduler: Scheduler | undefined;
  useKarrasSigmas: boolean | undefined;
  timestepSpacing: TimestepSpacing | undefined;
  model: string | undefined;
  rankCount: number;
  /** 0 = one per core. */
  threadCount: number;
  vaeTiling: boolean;
  device: Device;
  /** undefined = the device's own. */
  dtype: Dtype | undefined;
  shareGpu: boolean;
  cudaGraphs: boolean;
  transport: Transport;
  fp16Accumulate: boolean;
  /** undefined = as the sampler wants it. */
  extrapolateHalos: boolean | undefined;
  splitBatch: boolean;
  syncMode: SyncMode;
  warmupStepCount: number | undefined;
  outPath: string;
  latentsPath: string | undefined;
  verbose: boolean;
  quiet: boolean;
  json: boolean;
}

type SampleArgs = ParsedArgs<SampleFlags>;

/** Checks each flag by itself. Throws `BasedXLError` "bad-option". */
export function parseSampleOptions(args: SampleArgs, randomSeed = drawSeed): SampleOptions {
  if (args.quiet && args.verbose) {
    throw badOption("--quiet and --verbose contradict each other: keep one of the two.");
  }
  const imageCount = whole(args, "num-images") ?? 1;
  const rankCount = whole(args, "gpus") ?? 1;
  const vaeTiling = args["vae-tiling"] ?? false;
  if (vaeTiling && rankCount > 1) {
    throw badOption(
      `--vae-tiling is for one rank: with --gpus ${rankCount} the ranks share the decode, exactly. \
Leave one of the two out.`,
    );
  }
  return {
    prompt: promptOf(args),
    negativePrompt: args["negative-prompt"],
    seed: args.seed === undefined ? randomSeed() : parseSeed(args.seed, imageCount),
    seedIsRandom: args.seed === undefined,
    rng: oneOf(args, "rng", rngs) ?? "cpu",
    imageCount,
    batchSize: whole(args, "batch-size") ?? 1,
    guidanceScale: decimal(args, "guidance-scale"),
    guidanceRescale: decimal(args, "guidance-rescale") ?? 0,
    stepCount: whole(args, "num-inference-steps"),
    width: whole(args, "width"),
    height: whole(args, "height"),
    scheduler: oneOf(args, "scheduler", schedulers),
    useKarrasSigmas: args["use-karras-sigmas"],
    timestepSpacing: oneOf(args, "timestep-spacing", timestepSpacings),
    model: args.model,
    rankCount,
    threadCount: whole(args, "threads") ?? 0,
    vaeTiling,
    device: oneOf(args, "device", devices) ?? "auto",
    dtype: oneOf(args, "dtype", dtypes),
    shareGpu: args["share-gpu"] ?? false,
    cudaGraphs: args["cuda-graphs"] ?? true,
    fp16Accumulate: args["fp16-accumulate"] ?? false,
    transport: oneOf(args, "transport", transports) ?? "auto",
    splitBatch: args["split-batch"] ?? true,
    syncMode: oneOf(args, "sync-mode", syncModes) ?? "corrected_async_gn",
    extrapolateHalos: args["predict-borders"],
    warmupStepCount: whole(args, "warmup-steps"),
    outPath: args["out-path"] ?? "sample.png",
    latentsPath: latentsPathOf(args),
    verbose: args.verbose ?? false,
    quiet: args.quiet ?? false,
    json: args.json ?? false,
  };
}

/** A request, and what its user should know about it although it can be drawn. */
export interface ResolvedRequest {
  request: SampleRequest;
  warnings: string[];
}

/**
 * Fills in the model's defaults and checks what depends on the model: sizes, steps, the prompt, and
 * whether so many ranks can share such a image. Throws `BasedXLError` "bad-option".
 */
export function resolveRequest(options: SampleOptions, model: ModelFolder): ResolvedRequest {
  const { defaults } = model;
  const warnings: string[] = [];
  const prompt = options.prompt ?? defaults.prompt;
  if (prompt === undefined) {
    throw badOption('Say what to draw: a prompt in quotes, as in sample "a red house".');
  }
  const guidanceScale = options.guidanceScale ?? defaults.guidanceScale ?? 5;
  if (options.negativePrompt !== undefined && guidanceScale <= 1) {
    warnings.push(
      `The negative prompt is not used: it needs --guidance-scale above 1, not ${guidanceScale}.`,
    );
  }
  if (options.guidanceRescale > 0 && guidanceScale <= 1) {
    warnings.push(
      `--guidance-rescale is not used: it needs --guidance-scale above 1, not ${guidanceScale}.`,
    );
  }
  const stepCount = options.stepCount ?? defaults.steps ?? 50;
  const { nativeSize } = model;
  const width = checkedSize("width", options.width, defaults.width ?? nativeSize.width, model);
  const height = checkedSize("height", options.height, defaults.height ?? nativeSize.height, model);
  checkLayout(options, guidanceScale > 1, height, model);
  if (options.vaeTiling) warnings.push(tilingWarning(model, width, height));
  const { imageCount, batchSize } = options;
  return {
    request: {
      model,
      prompt,
      negativePrompt: options.negativePrompt ?? null,
      seeds: Array.from({ length: imageCount }, (_, index) => options.seed + BigInt(index)),
      rng: options.rng,
      batchSize: Math.min(batchSize, imageCount),
      guidanceScale,
      guidanceRescale: options.guidanceRescale,
      stepCount,
      width,
      height,
      scheduler: options.scheduler ?? schedulerOf(model, warnings),
      useKarrasSigmas: options.useKarrasSigmas,
      timestepSpacing: options.timestepSpacing,
      rankCount: options.rankCount,
      threadCount: options.threadCount,
      vaeTiling: options.vaeTiling,
      splitBatch: options.splitBatch,
      syncMode: options.syncMode,
      extrapolateHalos: options.extrapolateHalos,
      warmupStepCount: checkedWarmup(options.warmupStepCount, stepCount),
      wantLatents: options.latentsPath !== undefined,
    },
    warnings,
  };
}

// --- internal ---

function badOption(message: string): BasedXLError {
  return new BasedXLError("bad-option", message);
}

function label(name: keyof SampleFlags): string {
  return flagLabel(name, sampleFlags[name]);
}

function promptOf(args: SampleArgs): string | undefined {
  const positionals = args._;
  if (positionals.length > 1) {
    const [first = "", second = ""] = positionals;
    throw badOption(
      `The prompt is one argument, but "${first}" is followed by "${second}": put it in quotes.`,
    );
  }
  const [positional] = positionals;
  if (positional !== undefined && args.prompt !== undefined) {
    throw badOption(
      `The prompt is given twice, as "${positional}" and by --prompt "${args.prompt}": keep one.`,
    );
  }
  if (positional?.trim() === "") throw badOption("The prompt is empty: say what to draw.");
  return positional ?? args.prompt;
}

/** The first seed; those of `imageCount` images, one up each, must be seeds too. */
function parseSeed(text: string, imageCount: number): bigint {
  const seed = /^\+?\d{1,30}$/.test(text) ? BigInt(text.replace("+", "")) : -1n;
  if (seed < 0n || seed > seedMax) {
    throw badOption(`--seed must be a whole number from 0 to ${seedMax} (2^63-1), not "${text}".`);
  }
  const firstMax = seedMax - BigInt(imageCount - 1);
  if (seed <= firstMax) return seed;
  throw badOption(
    `--seed ${seed} leaves no room for the seeds of ${imageCount} images, one up each: it must \
be at most ${firstMax}.`,
  );
}

/** Torch's CPU generator reads 32 bits of a seed, so more would be longer to type for nothing. */
function drawSeed(): bigint {
  return BigInt(crypto.getRandomValues(new Uint32Array(1))[0] ?? 0);
}

function whole(args: SampleArgs, name: keyof typeof limits): number | undefined {
  const text = args[name];
  if (text === undefined) return undefined;
  const { min, max } = limits[name];
  const value = /^[+-]?\d+$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw badOption(`${label(name)} must be a whole number from ${min} to ${max}, not "${text}".`);
}

function decimal(
  args: SampleArgs,
  name: "guidance-scale" | "guidance-rescale",
): number | undefined {
  const text = args[name];
  if (text === undefined) return undefined;
  const { min, max } = limits[name];
  const value = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw badOption(`${label(name)} must be a number from ${min} to ${max}, not "${text}".`);
}

function oneOf<Name extends string>(
  args: SampleArgs,
  flag: "rng" | "scheduler" | "timestep-spacing" | "device" | "dtype" | "transport" | "sync-mode",
  names: readonly Name[],
): Name | undefined {
  const text = args[flag];
  if (text === undefined) return undefined;
  const found = names.find((name) => name === text);
  if (found !== undefined) return found;
  const list = `${names.slice(0, -1).join(", ")} or ${names.at(-1)}`;
  throw badOption(`--${flag} must be ${list}, not "${text}".${suggestion(text, names)}`);
}

function latentsPathOf(args: SampleArgs): string | undefined {
  const path = args["save-latents"];
  if (path === undefined || path.toLowerCase().endsWith(".safetensors")) return path;
  throw badOption(`--save-latents must name a .safetensors file, not "${path}".`);
}

/** DistriFusion's default of 4, or all the steps where there are fewer. */
function checkedWarmup(given: number | undefined, stepCount: number): number {
  const warmup = given ?? Math.min(4, stepCount);
  if (warmup <= stepCount) return warmup;
  throw badOption(
    `--warmup-steps must be from 0 to the number of steps, ${stepCount}, not ${warmup}.`,
  );
}

function checkLayout(
  { rankCount, splitBatch }: SampleOptions,
  guidance: boolean,
  height: number,
  { vaeFactor, sizeMultiple }: ModelFolder,
): void {
  const latentRows = height / vaeFactor;
  const rowUnit = sizeMultiple / vaeFactor;
  layoutOf({ rankCount, guidance, splitBatch, latentRows, rowUnit, vaeFactor });
}

/** A flag's size, else the default, when it is a multiple of the model's unit and in range. */
function checkedSize(
  name: "width" | "height",
  given: number | undefined,
  fallback: number,
  { sizeMultiple: unit }: ModelFolder,
): number {
  const size = given ?? fallback;
  const max = Math.floor(limits[name].max / unit) * unit;
  if (size >= unit && size <= max && size % unit === 0) return size;
  const near = Math.min(max, Math.max(unit, Math.round(size / unit) * unit));
  throw badOption(
    `--${name} must be a multiple of ${unit} from ${unit} to ${max} pixels for this model, \
not ${size}: the nearest is ${near}.`,
  );
}

/** The sampler the model's own config names, or Euler when this version has not got that one. */
function schedulerOf(model: ModelFolder, warnings: string[]): Scheduler {
  const { className } = model.scheduler;
  const name = schedulerNameOfClass(className);
  if (name !== null) return name;
  warnings.push(
    `The model asks for ${escaped(className, 60)}, which this version has not got: drawing with \
euler. --scheduler takes ${schedulers.join(", ")}.`,
  );
  return "euler";
}
