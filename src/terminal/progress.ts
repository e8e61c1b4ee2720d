/**
 * Progress of a run: a bar that is redrawn in place on a terminal, plain lines elsewhere.
 * The formatters are pure; only `createProgressView` writes, with a clock that the caller passes.
 */

import { escaped } from "../errors.ts";
import type { DownloadProgress } from "../hub/progress.ts";
import type { JobProgress } from "../pipeline/events.ts";
import type { Progress } from "../pipeline/progress.ts";
import { DownloadRate, downloadBars, downloadLine } from "./download-lines.ts";
import { formatSeconds } from "./units.ts";

/** The output of the view; stderr in the command. */
export interface ProgressTarget {
  write(text: string): void;
  isTerminal: boolean;
  /** The current width: a terminal may be resized. */
  columns(): number;
}

export interface ProgressView {
  update(progress: ShownProgress): void;
  /** A bar for each file that is arriving, in the place of the run's. */
  download(progress: DownloadProgress): void;
  /** Prints a line above the bar. */
  line(text: string): void;
  /** Removes the bar; it does not come back before the next `update`. */
  clear(): void;
}

/** The displayed progress; without `images` there is one image. */
export type ShownProgress = Progress & Partial<Pick<JobProgress, "images" | "pass">>;

/** When the stage began and its last step ended, in milliseconds of the caller's clock. */
export interface StageTimes {
  stage: Progress["stage"];
  /** Number of the first image that is being generated, from 1. */
  imageFirst: number;
  stageStartMs: number;
  lastStepMs: number;
  stepsDone: number;
}

const stageWords: Record<Progress["stage"], string> = {
  load: "Loading the model",
  adapt: "Applying LoRAs",
  text: "Encoding the prompt",
  denoise: "Denoising",
  decode: "Decoding",
  encode: "Encoding",
  upscale: "Enlarging",
};
const redrawMsMin = 100;
const plainLineMsMax = 10_000;
const plainLineMsMin = 1000;

/** Draws a bar when `target` is a terminal, else a plain line every tenth or every 10 seconds. */
export function createProgressView(target: ProgressTarget, clockMs: () => number): ProgressView {
  return target.isTerminal ? barView(target, clockMs) : plainView(target, clockMs);
}

/** Updates the times of stage starts and step ends; `times` is null before the first event. */
function followStages(
  times: StageTimes | null,
  { stage, stepIndex, images }: ShownProgress,
  nowMs: number,
): StageTimes {
  const imageFirst = images?.first ?? 1;
  if (times?.stage !== stage || times.imageFirst !== imageFirst) {
    return { stage, imageFirst, stageStartMs: nowMs, lastStepMs: nowMs, stepsDone: stepIndex };
  }
  return stepIndex === times.stepsDone
    ? times
    : { ...times, lastStepMs: nowMs, stepsDone: stepIndex };
}

/**
 * `Denoising image 2 of 4 ████░░░░  12/25  0.31 s per step  4 s left`, at most `columns` wide: the
 * bar shrinks first, then parts are left out from the right. Stages without a known fraction show
 * their name and seconds. The image number is included where there are several.
 */
export function formatBar(
  progress: ShownProgress,
  times: StageTimes,
  nowMs: number,
  columns: number,
): string {
  const parts = partsOf(progress, times, nowMs);
  const head = headOf(progress);
  const fraction = fractionOf(progress);
  if (fraction === null) return fit([head, ...parts], columns);
  const partsWidth = parts.reduce((sum, part) => sum + part.length + 2, 0);
  const barWidth = Math.min(30, columns - head.length - 1 - partsWidth);
  if (barWidth < 5) return fit([head, ...parts], columns);
  const filled = Math.round(Math.min(1, Math.max(0, fraction)) * barWidth);
  const bar = "█".repeat(filled) + "░".repeat(barWidth - filled);
  return fit([`${head} ${bar}`, ...parts], columns);
}

/** `Step 12/25 of image 2 of 4, 0.31 s per step, 4 s left`: the same without a bar. */
export function formatPlain(progress: ShownProgress, times: StageTimes, nowMs: number): string {
  const parts = partsOf(progress, times, nowMs);
  if (progress.stage !== "denoise") return [headOf(progress), ...parts].join(", ");
  const which = imageOf(progress);
  const [steps, ...rest] = parts;
  return [`Step ${steps}${which === "" ? "" : ` of ${which}`}`, ...rest].join(", ");
}

// --- internal ---

function barView(target: ProgressTarget, clockMs: () => number): ProgressView {
  let times: StageTimes | null = null;
  let shown: string[] = [];
  let shownKey = "";
  let shownMs = Number.NEGATIVE_INFINITY;
  const rate = new DownloadRate();
  const draw = (lines: string[]) => {
    if (lines.join("\n") === shown.join("\n")) return;
    target.write(clearLines(Math.max(1, shown.length)) + lines.join("\n"));
    shown = lines;
  };
  /** False where the same was drawn a moment ago. */
  const isDue = (key: string, nowMs: number) => {
    if (key === shownKey && nowMs - shownMs < redrawMsMin) return false;
    shownKey = key;
    shownMs = nowMs;
    return true;
  };
  // One column stays free: a full line makes some terminals scroll.
  const columns = () => target.columns() - 1;
  return {
    update(progress) {
      const nowMs = clockMs();
      times = followStages(times, progress, nowMs);
      const key = `${progress.images?.first} ${progress.stage} ${progress.stepIndex}`;
      if (isDue(key, nowMs)) draw([formatBar(progress, times, nowMs, columns())]);
    },
    download(progress) {
      const nowMs = clockMs();
      const bytesPerSecond = rate.at(nowMs, progress.fetchedBytes);
      const isDone = progress.doneBytes === progress.bytes;
      if (isDue(`download ${isDone}`, nowMs)) draw(safeBars(progress, bytesPerSecond, columns()));
    },
    line(text) {
      const bar = shown.join("\n");
      if (bar !== "") target.write(clearLines(shown.length));
      target.write(`${text}\n${bar}`);
    },
    clear() {
      if (shown.length > 0) target.write(clearLines(shown.length));
      shown = [];
      shownKey = "";
    },
  };
}

/** Names of files are foreign text. */
function safeBars(progress: DownloadProgress, rate: number | null, columns: number): string[] {
  return downloadBars(progress, rate, columns).map((line) => escaped(line));
}

/** Removes the last lines, the cursor being at the end of the last one. */
function clearLines(count: number): string {
  return count === 1 ? "\r\x1b[K" : `\r\x1b[${count - 1}A\x1b[J`;
}

function plainView(target: ProgressTarget, clockMs: () => number): ProgressView {
  let times: StageTimes | null = null;
  let lastMs = clockMs();
  let lastTenth = 0;
  let downloadTenth = 0;
  const rate = new DownloadRate();
  return {
    download(progress) {
      const nowMs = clockMs();
      const bytesPerSecond = rate.at(nowMs, progress.fetchedBytes);
      const tenth = Math.floor((10 * progress.doneBytes) / progress.bytes);
      const waitedMs = nowMs - lastMs;
      // Small models arrive in less than it takes to read ten lines.
      if (waitedMs < (tenth === downloadTenth ? plainLineMsMax : plainLineMsMin)) return;
      downloadTenth = tenth;
      lastMs = nowMs;
      target.write(`${downloadLine(progress, bytesPerSecond)}\n`);
    },
    update(progress) {
      const nowMs = clockMs();
      const { stage, stepCount } = progress;
      if (stage === "decode" && times?.stage === "denoise" && times.stepsDone < stepCount) {
        // Polling may miss the moment between the last step and decoding.
        this.update({ ...progress, stage: "denoise", stepIndex: stepCount });
      }
      const before = times?.imageFirst;
      times = followStages(times, progress, nowMs);
      if (times.imageFirst !== before) lastTenth = 0;
      const denoising = progress.stage === "denoise" && progress.stepCount > 0;
      const tenth = denoising
        ? Math.floor((10 * progress.stepIndex) / progress.stepCount)
        : lastTenth;
      if (tenth === lastTenth && nowMs - lastMs < plainLineMsMax) return;
      lastTenth = tenth;
      lastMs = nowMs;
      target.write(`${formatPlain(progress, times, nowMs)}\n`);
    },
    line: (text) => target.write(`${text}\n`),
    clear: () => {},
  };
}

/**
 * `image 2 of 4`, `images 3 to 4 of 8`, with `, pass 1 of 2` behind; "" for a single one and before
 * the first begins.
 */
function imageOf({ stage, images, pass }: ShownProgress): string {
  if (stage === "load" || stage === "text") return "";
  const passes = pass === undefined ? [] : [`pass ${pass.index} of ${pass.count}`];
  if (images === undefined || images.count === 1) return passes.join();
  const { first, last, count } = images;
  const which = first === last ? `image ${first}` : `images ${first} to ${last}`;
  return [`${which} of ${count}`, ...passes].join(", ");
}

/** `Denoising image 2 of 4`. */
function headOf(progress: ShownProgress): string {
  const which = imageOf(progress);
  const words = stageWords[progress.stage];
  return which === "" ? words : `${words} ${which}`;
}

/** The finished fraction of the stage, 0 to 1; null where it is unknown. */
function fractionOf(progress: ShownProgress): number | null {
  if (progress.stage === "load") return progress.loadFraction;
  if (progress.stage === "adapt") return progress.adaptFraction;
  const isCounted = progress.stage === "denoise" || progress.stage === "upscale";
  return isCounted ? progress.stepIndex / Math.max(1, progress.stepCount) : null;
}

/** The figures beside the bar or the stage's name; elapsed time appears after one second. */
function partsOf(progress: ShownProgress, times: StageTimes, nowMs: number): string[] {
  const { stage, stepIndex, stepCount } = progress;
  if (stage !== "denoise") {
    const seconds = (nowMs - times.stageStartMs) / 1000;
    const elapsed = seconds < 1 ? [] : [formatSeconds(seconds)];
    const fraction = fractionOf(progress);
    return fraction === null ? elapsed : [`${Math.floor(100 * fraction)} %`, ...elapsed];
  }
  const parts = [`${stepIndex}/${stepCount}`];
  if (stepIndex === 0) return parts;
  const stepMs = (times.lastStepMs - times.stageStartMs) / stepIndex;
  parts.push(`${formatSeconds(stepMs / 1000)} per step`);
  if (stepIndex === stepCount) return parts;
  const leftMs = Math.max(0, stepMs * (stepCount - stepIndex) - (nowMs - times.lastStepMs));
  parts.push(`${formatSeconds(leftMs / 1000)} left`);
  return parts;
}

function fit(parts: readonly string[], columns: number): string {
  let text = "";
  for (const part of parts) {
    const longer = text === "" ? part : `${text}  ${part}`;
    if (longer.length > columns) break;
    text = longer;
  }
  return text;
}
