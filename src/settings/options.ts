/**
 * From the flags of `sample` to a request that needs no further checks. Everything that can be
 * wrong with a number, a name or a size is said here, with what would work, before weights load.
 *
 * An absent flag stays `undefined` until the model is known: models bring defaults of their own.
 */
import { BasedXLError, escaped } from "../errors.ts";
import type { ModelFolder } from "../models/folder.ts";
import { layoutOf } from "../pipeline/layout.ts";
import type { SampleRequest } from "../pipeline/request.ts";
import { tilingWarning } from "../pipeline/vae-tiling.ts";
import { samplerOfModel } from "../schedule.ts";
import { type Scheduler, schedulers } from "./names.ts";
import {
  type GivenSettings,
  type SettingKey,
  seedMax,
  settingKeys,
  settingOf,
  settings,
} from "./table.ts";
import { parseSetting } from "./values.ts";

/** The flags, checked as far as they can be without a model; see `table.ts` for each. */
export interface SampleOptions extends Omit<GivenSettings, "seed"> {
  /** Of the first image; the others' follow it. */
  seed: bigint;
  seedIsRandom: boolean;
}

/** What citty gives: by flag, and positionals in `_`. */
interface SampleArgs {
  _: string[];
  [flag: string]: string | number | boolean | string[] | undefined;
}

/** Checks each flag by itself. Throws `BasedXLError` "bad-option". */
export function parseSampleOptions(args: SampleArgs, randomSeed = chooseSeed): SampleOptions {
  if (args.quiet && args.verbose) {
    throw badOption("--quiet and --verbose contradict each other: keep one of the two.");
  }
  const given = Object.fromEntries(
    settingKeys.map((key) => [key, readFlag(key, args[settings[key].flag])]),
  ) as unknown as GivenSettings;
  const { rankCount, vaeTiling, seed, imageCount } = given;
  if (vaeTiling && rankCount > 1) {
    throw badOption(
      `--vae-tiling is for one rank: with --gpus ${rankCount} the ranks share the decode, exactly. \
Leave one of the two out.`,
    );
  }
  if (seed !== undefined) checkSeedRoom(seed, imageCount);
  return {
    ...given,
    prompt: promptOf(args._, given.prompt),
    seed: seed ?? randomSeed(),
    seedIsRandom: seed === undefined,
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
      warmupStepCount: checkedWarmup(options.warmupSteps, stepCount),
      wantLatents: options.latentsPath !== undefined,
    },
    warnings,
  };
}

// --- internal ---

function badOption(message: string): BasedXLError {
  return new BasedXLError("bad-option", message);
}

/** A flag's value, else the table's default, else undefined. */
function readFlag(key: SettingKey, given: SampleArgs[string]): unknown {
  const setting = settingOf(key);
  if (given === undefined) return "default" in setting ? setting.default : undefined;
  return typeof given === "boolean" ? given : parseSetting(key, String(given));
}

function promptOf(positionals: readonly string[], byFlag: string | undefined): string | undefined {
  const [positional, second] = positionals;
  if (second !== undefined) {
    throw badOption(
      `The prompt is one argument, but "${positional}" is followed by "${second}": \
put it in quotes.`,
    );
  }
  if (positional !== undefined && byFlag !== undefined) {
    throw badOption(
      `The prompt is given twice, as "${positional}" and by --prompt "${byFlag}": keep one.`,
    );
  }
  if (positional?.trim() === "") throw badOption("The prompt is empty: say what the image shows.");
  return positional ?? byFlag;
}

/** The seeds of all images, one up each, must be seeds too. */
function checkSeedRoom(seed: bigint, imageCount: number): void {
  const firstMax = seedMax - BigInt(imageCount - 1);
  if (seed <= firstMax) return;
  throw badOption(
    `--seed ${seed} leaves no room for the seeds of ${imageCount} images, one up each: it must \
be at most ${firstMax}.`,
  );
}

/** Torch's CPU generator reads 32 bits of a seed, so that more would be longer to type in vain. */
function chooseSeed(): bigint {
  return BigInt(crypto.getRandomValues(new Uint32Array(1))[0] ?? 0);
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
  const max = Math.floor(settings[name].max / unit) * unit;
  if (size >= unit && size <= max && size % unit === 0) return size;
  const near = Math.min(max, Math.max(unit, Math.round(size / unit) * unit));
  throw badOption(
    `--${name} must be a multiple of ${unit} from ${unit} to ${max} pixels for this model, \
not ${size}: the nearest is ${near}.`,
  );
}

/** The sampler the model's own config names, or Euler when this version has not got that one. */
function schedulerOf(model: ModelFolder, warnings: string[]): Scheduler {
  const { scheduler } = model;
  const { name, replaced } = samplerOfModel(scheduler);
  if (!replaced) return name;
  warnings.push(
    `The model asks for ${escaped(scheduler.className, 60)}, which this version has not got: \
drawing with euler. --scheduler takes ${schedulers.join(", ")}.`,
  );
  return name;
}
