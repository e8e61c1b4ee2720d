/**
 * One picture from one checked request: prompt to tokens, sampler to rows, session to pixels.
 * It neither prints nor writes files nor reads flags: whoever calls it decides about those.
 */
import { stopIfAborted } from "./errors.ts";
import type { TimestepSpacing } from "./models/config.ts";
import type { ModelFolder } from "./models/folder.ts";
import type { OpenOptions, PictureResult, Progress, Session, TokenPair } from "./native/session.ts";
import type { SchedulerName } from "./schedule.ts";
import { makeSchedule } from "./schedule.ts";

/** What to draw. Sizes are pixels and multiples of the model's unit; see `options.ts`. */
export interface GenerateRequest {
  model: ModelFolder;
  prompt: string;
  /** null = none was asked for: zeros, or the empty prompt, as the model's config says. */
  negativePrompt: string | null;
  seed: bigint;
  guidanceScale: number;
  stepCount: number;
  width: number;
  height: number;
  scheduler: SchedulerName;
  /** undefined = as the model's config says, like `timestepSpacing`. */
  useKarrasSigmas: boolean | undefined;
  timestepSpacing: TimestepSpacing | undefined;
  rankCount: number;
  /** 0 = one per core. */
  threadCount: number;
  wantLatents: boolean;
}

/** What drawing needs of a session; tests bring one that only takes notes. */
export type DrawingSession = Pick<Session, "rankCountUsed" | "layout" | "picture" | "close">;

/** What the outside brings; a server may hand out sessions it keeps open. */
export interface GenerateDependencies {
  openSession(options: OpenOptions): Promise<DrawingSession>;
  onProgress?: (progress: Progress) => void;
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
  stepMs: number[];
}

export interface GenerateResult {
  /** RGB bytes, height × width × 3. */
  pixels: Uint8Array;
  width: number;
  height: number;
  latents: PictureResult["latents"];
  latentShape: PictureResult["latentShape"];
  rankCountUsed: number;
  /** In words, such as "2 ranks = 2 guidance branches". */
  layout: string;
  warnings: string[];
  timings: GenerateTimings;
}

/**
 * Draws the picture. Rejects with `BasedXLError`: "bad-option" or "bad-model" before weights load,
 * "cancelled" within a second of `signal`, else what the session reports. The session is closed
 * whatever happens.
 */
export async function generate(
  request: GenerateRequest,
  dependencies: GenerateDependencies,
): Promise<GenerateResult> {
  const { model, width, height, guidanceScale, rankCount, threadCount } = request;
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

  stopIfAborted(signal);
  const loadStart = performance.now();
  const session = await dependencies.openSession({
    model,
    rankCount,
    threadCount,
    width,
    height,
    guidance,
    onProgress,
    signal,
  });
  try {
    const loadMs = performance.now() - loadStart;
    const { rankCountUsed, layout } = session;
    if (rankCountUsed < rankCount) warn(ranksUnused(rankCount, rankCountUsed, guidance));
    dependencies.onLayout?.(layout);
    stopIfAborted(signal);
    const picture = await session.picture(
      {
        width,
        height,
        prompt,
        negative,
        guidanceScale,
        rows,
        initNoiseSigma,
        seed: request.seed,
        wantLatents: request.wantLatents,
      },
      { onProgress, signal },
    );
    stopIfAborted(signal);
    const { pixels, latents, latentShape } = picture;
    const timings = { loadMs, ...picture.timings };
    return {
      pixels,
      width,
      height,
      latents,
      latentShape,
      rankCountUsed,
      layout,
      warnings,
      timings,
    };
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
    warn(`The ${what} is longer than ${first.ids.length} tokens; left out: "${dropped}".`);
  }
  return { ids: first.ids, ids2: second.ids, endIndex2: second.endIndex };
}

function ranksUnused(asked: number, used: number, guidance: boolean): string {
  const why = guidance
    ? "ranks share the two guidance branches only"
    : "without guidance there is one branch, and ranks share branches only";
  return `${asked} ranks were asked for, ${used} used: in this version ${why}.`;
}
