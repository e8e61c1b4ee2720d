/**
 * Progress of one picture: a bar that is redrawn in place on a terminal, plain lines elsewhere.
 * The formatters are pure; only `createProgressView` writes, and it takes its clock from outside.
 */
import type { Progress } from "./native/session.ts";

/** Where lines go; stderr in the command. */
export interface ProgressTarget {
  write(text: string): void;
  isTerminal: boolean;
  /** Columns now: a terminal may be resized. */
  columns(): number;
}

export interface ProgressView {
  update(progress: Progress): void;
  /** Prints a line above the bar. */
  line(text: string): void;
  /** Removes the bar; it does not come back before the next `update`. */
  clear(): void;
}

/** Times of one picture's steps, kept across updates. Milliseconds of the caller's clock. */
export interface StepTimes {
  denoiseStartMs: number;
  lastStepMs: number;
  stepsDone: number;
}

const clearLine = "\r\x1b[K";
const redrawMsMin = 100;
const plainLineMsMax = 10_000;

/** Draws a bar when `target` is a terminal, else a plain line every tenth or every 10 seconds. */
export function createProgressView(target: ProgressTarget, clockMs: () => number): ProgressView {
  return target.isTerminal ? barView(target, clockMs) : plainView(target, clockMs);
}

/** Follows the steps: starts at the first denoise event and notes when the last step ended. */
export function followSteps(
  times: StepTimes | null,
  progress: Progress,
  nowMs: number,
): StepTimes | null {
  if (progress.stage !== "denoise") return times;
  if (!times) return { denoiseStartMs: nowMs, lastStepMs: nowMs, stepsDone: progress.stepIndex };
  if (progress.stepIndex === times.stepsDone) return times;
  return { ...times, lastStepMs: nowMs, stepsDone: progress.stepIndex };
}

/**
 * `Drawing ████░░░░ 12/25  0.31 s per step  4 s left`, at most `columns` wide: parts that do not fit
 * are left out from the right, the bar first shrinks.
 */
export function formatBar(
  progress: Progress,
  times: StepTimes | null,
  nowMs: number,
  columns: number,
): string {
  if (progress.stage === "text") return fit(["Reading the prompt"], columns);
  if (progress.stage === "decode") return fit(["Decoding"], columns);
  const loading = progress.stage === "load";
  const fraction = loading ? progress.loadFraction : progress.stepIndex / progress.stepCount;
  const parts = loading ? [percent(fraction)] : stepParts(progress, times, nowMs);
  const head = loading ? "Loading" : "Drawing";
  const partsWidth = parts.reduce((sum, part) => sum + part.length + 2, 0);
  const barWidth = Math.min(30, columns - head.length - 1 - partsWidth);
  return barWidth < 5
    ? fit([head, ...parts], columns)
    : fit([`${head} ${bar(fraction, barWidth)}`, ...parts], columns);
}

/** `Step 12/25, 0.31 s per step, 4 s left`: the same without a bar. */
export function formatPlain(progress: Progress, times: StepTimes | null, nowMs: number): string {
  switch (progress.stage) {
    case "load":
      return `Loading the model, ${percent(progress.loadFraction)}`;
    case "text":
      return "Reading the prompt";
    case "denoise":
      return `Step ${stepParts(progress, times, nowMs).join(", ")}`;
    case "decode":
      return "Decoding";
  }
}

/** 0.012 s, 0.31 s, 4.2 s, 42 s, 3 min 20 s, 2 h 05 min. */
export function formatSeconds(seconds: number): string {
  if (seconds < 0.0995) return `${seconds.toFixed(3)} s`;
  if (seconds < 0.995) return `${seconds.toFixed(2)} s`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const pad = (value: number) => String(value).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${pad(Math.floor((whole % 3600) / 60))} min`;
}

// --- internal ---

function barView(target: ProgressTarget, clockMs: () => number): ProgressView {
  let times: StepTimes | null = null;
  let shown = "";
  let shownKey = "";
  let shownMs = Number.NEGATIVE_INFINITY;
  const clear = () => {
    if (shown !== "") target.write(clearLine);
    shown = "";
    shownKey = "";
  };
  return {
    update(progress) {
      const nowMs = clockMs();
      times = followSteps(times, progress, nowMs);
      const key = `${progress.stage} ${progress.stepIndex}`;
      if (key === shownKey && nowMs - shownMs < redrawMsMin) return;
      shownKey = key;
      shownMs = nowMs;
      // One column stays free: a full line makes some terminals scroll.
      const text = formatBar(progress, times, nowMs, target.columns() - 1);
      if (text === shown) return;
      shown = text;
      target.write(clearLine + text);
    },
    line(text) {
      const bar = shown;
      if (bar !== "") target.write(clearLine);
      target.write(`${text}\n${bar}`);
    },
    clear,
  };
}

function plainView(target: ProgressTarget, clockMs: () => number): ProgressView {
  let times: StepTimes | null = null;
  let lastMs = clockMs();
  let lastTenth = 0;
  return {
    update(progress) {
      const nowMs = clockMs();
      times = followSteps(times, progress, nowMs);
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

function stepParts(progress: Progress, times: StepTimes | null, nowMs: number): string[] {
  const { stepIndex, stepCount } = progress;
  const parts = [`${stepIndex}/${stepCount}`];
  if (!times || stepIndex === 0) return parts;
  const stepMs = (times.lastStepMs - times.denoiseStartMs) / stepIndex;
  parts.push(`${formatSeconds(stepMs / 1000)} per step`);
  if (stepIndex === stepCount) return parts;
  const leftMs = Math.max(0, stepMs * (stepCount - stepIndex) - (nowMs - times.lastStepMs));
  parts.push(`${formatSeconds(leftMs / 1000)} left`);
  return parts;
}

function bar(fraction: number, width: number): string {
  const filled = Math.round(Math.min(1, Math.max(0, fraction)) * width);
  return "█".repeat(filled) + "░".repeat(width - filled);
}

function percent(fraction: number): string {
  return `${Math.floor(100 * Math.min(1, Math.max(0, fraction)))} %`;
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
