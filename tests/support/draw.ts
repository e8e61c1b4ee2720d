/**
 * Images directly from a session, for tests: everything that a test does not set has a default
 * value here, so that two images differ only in the values that the test sets.
 */
import type { EmbeddingTable } from "../../src/embeddings.ts";
import type { Model } from "../../src/models/model.ts";
import type { OpenOptions } from "../../src/pipeline/open-options.ts";
import { defaultRules, PromptEncoder, type PromptRules } from "../../src/pipeline/prompts.ts";
import {
  type ImageRequest,
  type ImageResult,
  openSession,
  type Session,
} from "../../src/pipeline/session.ts";
import { makeSchedule } from "../../src/schedule.ts";
import type { Scheduler } from "../../src/settings/names.ts";

type Request = Omit<ImageRequest, "prompt" | "negative" | "steps" | "initNoiseSigma">;

/** The request and the ranks. Without guidance there is no negative prompt. */
export interface Work
  extends Partial<Omit<Request, "guidanceScale">>,
    Pick<Partial<OpenOptions>, "threadCount" | "gpu" | "dtype" | "onWarning" | "onWeightNote"> {
  model: Model;
  width: number;
  height: number;
  rankCount?: number;
  guidanceScale?: number;
  prompt?: string;
  /** How prompts are read. Default: plain. */
  rules?: Partial<PromptRules>;
  /** Those that prompt and negative prompt mention. */
  embeddings?: EmbeddingTable;
  /** null = zeros. */
  negative?: string | null;
  scheduler?: Scheduler;
  stepCount?: number;
  /** Only so many of the steps. */
  stepsDone?: number;
  /** The first step with guidance, and the one after the last. Default: all. */
  guidedSteps?: readonly [number, number];
}

/** Opens a session for `work`; the caller closes it. */
export function openFor(work: Work): Promise<Session> {
  const { model, width, height, rankCount = 1, threadCount = 0, splitBatch = true } = work;
  return openSession({
    model,
    width,
    height,
    rankCount,
    threadCount,
    gpu: work.gpu,
    dtype: work.dtype,
    onWarning: work.onWarning,
    onWeightNote: work.onWeightNote,
    splitBatch,
    guidance: guidanceOf(work) > 1,
    imageCount: seedsOf(work).length,
  });
}

/** Opens a session for `work`, and closes it after `use`, also when it throws. */
export async function withSession<T>(work: Work, use: (s: Session) => Promise<T>): Promise<T> {
  const session = await openFor(work);
  try {
    return await use(session);
  } finally {
    await session.close();
  }
}

/** One batch in a session of its own. */
export function draw(work: Work): Promise<ImageResult> {
  return withSession(work, (session) => session.image(requestOf(work)));
}

/** The latents of one batch in a session of its own. */
export async function drawLatents(work: Work): Promise<Float32Array> {
  return latentsOf(await draw(work));
}

export function latentsOf({ latents }: ImageResult): Float32Array {
  if (latents === null) throw new Error("the image came without latents");
  return latents;
}

/** The request alone, for a session that is open. */
export function requestOf(work: Work): ImageRequest {
  const { model, stepCount = 3, stepsDone = stepCount, scheduler = "euler" } = work;
  const { prompt = "a red circle", negative = "blurry", gpu: _, dtype: __, ...more } = work;
  const { embeddings, rules, guidedSteps: [first, end] = [0, stepCount], ...fields } = more;
  const encoder = encoderOf(work);
  const interpolates = rules?.promptSyntax === "comfyui";
  const schedule = makeSchedule(scheduler, model.scheduler, { stepCount });
  const hasNegative = guidanceOf(work) > 1 && negative !== null;
  return {
    splitBatch: true,
    syncMode: "full_sync",
    warmupSteps: 0,
    wantLatents: true,
    ...fields,
    guidanceScale: guidanceOf(work),
    seeds: seedsOf(work),
    prompt: encoder.prompt(prompt),
    negative: hasNegative ? encoder.negative(negative) : null,
    ...(interpolates && { emphasis: "interpolate", empty: encoder.empty() }),
    injected: embeddings,
    steps: schedule.steps
      .slice(0, stepsDone)
      .map((step, i) => (i >= first && i < end ? step : { ...step, guidanceFactor: 0 })),
    initNoiseSigma: schedule.initNoiseSigma,
  };
}

// --- internal ---

function guidanceOf({ guidanceScale = 5 }: Work): number {
  return guidanceScale;
}

function seedsOf({ seeds = [11n] }: Work): readonly bigint[] {
  return seeds;
}

function encoderOf({ model, embeddings, rules }: Work): PromptEncoder {
  const all = { ...defaultRules, ...rules };
  return new PromptEncoder(model, () => {}, { embeddings, rules: all });
}
