/**
 * Image generation for the benches: one model, one size, one schedule, by several rank counts and
 * sync modes. One session per rank count generates all images.
 */

import { badOption } from "../errors.ts";
import { resolveModelPath } from "../models/locate.ts";
import type { Model } from "../models/model.ts";
import { openModel } from "../models/open.ts";
import type { TokenPair } from "../native/handle.ts";
import { extrapolatesByDefault, layoutOf } from "../pipeline/layout.ts";
import {
  type ImageRequest,
  type ImageResult,
  openSession,
  type Session,
} from "../pipeline/session.ts";
import { makeSchedule, type Schedule } from "../schedule.ts";
import { schedulers } from "../settings/names.ts";
import { settings } from "../settings/table.ts";
import { decimalOf, type Flags, nameOf, sizeOf, textOf, wholeOf } from "./flags.ts";

/** The settings that all images of a bench share. */
export interface Generation {
  model: Model;
  width: number;
  height: number;
  guidanceScale: number;
  schedule: Schedule;
  stepCount: number;
}

export interface Ranks {
  rankCount: number;
  splitBatch: boolean;
  /** 0 = one per core. */
  threadCount: number;
}

/** One prompt with one seed. */
export interface Case {
  prompt: string;
  seed: bigint;
}

/** The settings from flags and the model's defaults. Throws "bad-option" or "bad-model". */
export async function readGeneration(flags: Flags, stepCountDefault?: number): Promise<Generation> {
  const stepCount = wholeOf(flags, "steps", settings.stepCount);
  const guidanceScale = decimalOf(flags, "guidance-scale", settings.guidanceScale);
  const scheduler = nameOf(flags, "scheduler", schedulers) ?? "euler";
  const model = await openModel((await resolveModelPath(textOf(flags, "model"))).path);
  const { defaults, nativeSize } = model;
  const steps = stepCount ?? stepCountDefault ?? defaults.steps ?? 50;
  const size = sizeOf(flags, model.sizeMultiple);
  return {
    model,
    width: size?.width ?? defaults.width ?? nativeSize.width,
    height: size?.height ?? defaults.height ?? nativeSize.height,
    guidanceScale: guidanceScale ?? defaults.guidanceScale ?? 5,
    schedule: makeSchedule(scheduler, model.scheduler, { stepCount: steps }),
    stepCount: steps,
  };
}

/** The layout of the ranks; throws "bad-option" where the height has too few rows for them. */
export function layoutFor(generation: Generation, ranks: Pick<Ranks, "rankCount" | "splitBatch">) {
  const { model, height, guidanceScale } = generation;
  const { vaeFactor, sizeMultiple } = model;
  return layoutOf({
    ...ranks,
    guidance: guidanceScale > 1,
    latentRows: height / vaeFactor,
    rowUnit: sizeMultiple / vaeFactor,
    vaeFactor,
  });
}

/** Whether `sample` extrapolates halo rows by default. */
export function extrapolatesFor(
  generation: Generation,
  how: Pick<Ranks, "rankCount" | "splitBatch"> & Pick<ImageRequest, "syncMode" | "warmupSteps">,
): boolean {
  const { model, schedule } = generation;
  const { patches } = layoutFor(generation, how);
  const rowUnit = model.sizeMultiple / model.vaeFactor;
  return extrapolatesByDefault({ ...how, steps: schedule.steps, patches, rowUnit });
}

/** The requested rank counts, checked; without any, those of `fallback` that the height allows. */
export function feasibleRankCounts(
  generation: Generation,
  asked: readonly number[] | undefined,
  fallback: readonly number[],
  splitBatch: boolean,
): number[] {
  if (asked !== undefined) {
    for (const rankCount of asked) layoutFor(generation, { rankCount, splitBatch });
    return [...asked];
  }
  const counts = fallback.filter((rankCount) => {
    try {
      layoutFor(generation, { rankCount, splitBatch });
      return true;
    } catch {
      return false;
    }
  });
  if (counts.length === 0) {
    throw badOption(
      `A height of ${generation.height} has rows for one patch only: use a larger one.`,
    );
  }
  return counts;
}

export async function openRanks(generation: Generation, ranks: Ranks): Promise<Session> {
  const { model, width, height, guidanceScale } = generation;
  return await openSession({
    model,
    width,
    height,
    guidance: guidanceScale > 1,
    imageCount: 1,
    ...ranks,
  });
}

/** One image as `sample` generates it; a `stepCount` below the schedule's stops early. */
export async function generateImage(
  session: Session,
  generation: Generation,
  { prompt, seed }: Case,
  how: Pick<ImageRequest, "syncMode" | "warmupSteps" | "splitBatch"> &
    Pick<ImageRequest, "extrapolateHalos" | "compressExchange" | "balance" | "testHooks"> &
    Pick<ImageRequest, "warmupThreshold"> & {
      stepCount?: number;
    },
): Promise<ImageResult> {
  const { model, width, height, guidanceScale, schedule } = generation;
  const { stepCount, ...ranks } = how;
  const request: ImageRequest = {
    width,
    height,
    prompt: tokensOf(model, prompt),
    negative: model.forceZerosForEmptyPrompt ? null : tokensOf(model, ""),
    guidanceScale,
    steps: schedule.steps.slice(0, stepCount),
    initNoiseSigma: schedule.initNoiseSigma,
    seeds: [seed],
    extrapolateHalos: extrapolatesFor(generation, { ...how, rankCount: session.rankCount }),
    ...ranks,
    wantLatents: true,
  };
  return await session.image(request);
}

// --- internal ---

function tokensOf(model: Model, text: string): TokenPair {
  const second = model.tokenizer2.encode(text);
  return {
    ids: model.tokenizer?.encode(text).ids ?? new Int32Array(),
    ids2: second.ids,
    endIndex2: second.endIndex,
  };
}
