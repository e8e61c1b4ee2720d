/**
 * Numbers, times and values of settings as the page writes them.
 */
import type { Job } from "../server/wire.ts";

/** `8 s`, `2:05`, `1:02:05`. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const shown = parts[0] === 0 ? parts.slice(1) : parts;
  return shown
    .map((part, at) => (at === 0 ? String(part) : String(part).padStart(2, "0")))
    .join(":");
}

export function fileSize(bytes: number): string {
  return bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** "" for none. */
export function valueText(value: unknown): string {
  if (value === undefined) return "";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** What a job does now, in words: "Step 3 of 20 · 8 s left". */
export function progressText({ state, progress, position }: Job): string {
  if (state === "queued") return position ? `Waiting, ${position} before it` : "Next in the queue";
  if (state === "done") return "Done";
  if (state === "failed") return "Failed";
  if (state === "cancelled") return "Cancelled";
  if (progress === null) return "Starting";
  const left = progress.secondsLeft === null ? "" : ` · ${duration(progress.secondsLeft)} left`;
  if (progress.stage !== "denoise") return `${stageTexts[progress.stage] ?? progress.stage}${left}`;
  const { pass } = progress;
  const ofPass = pass === undefined ? "" : `, pass ${pass.index} of ${pass.count}`;
  return `Step ${progress.step} of ${progress.steps}${ofPass}${left}`;
}

/** 0 to 1; null while nothing is known. */
export function progressShare({ state, progress }: Job): number | null {
  if (state === "done") return 1;
  if (progress === null || progress.steps === 0) return null;
  const { index, count } = progress.pass ?? { index: 1, count: 1 };
  if (progress.stage === "decode") return index / count;
  return progress.stage === "denoise" ? (index - 1 + progress.step / progress.steps) / count : null;
}

/** The tab's title while a job runs. */
export function titleOf(job: Job | null): string {
  if (job === null || job.state === "cancelled") return "BasedXL";
  if (job.state === "queued") return `${(job.position ?? 0) + 1}. in queue · BasedXL`;
  if (job.state === "failed") return "Failed · BasedXL";
  if (job.state === "done") return "Done · BasedXL";
  const { progress } = job;
  if (progress === null || progress.stage !== "denoise") return "… · BasedXL";
  const left = progress.secondsLeft === null ? "" : ` · ${duration(progress.secondsLeft)}`;
  return `${progress.step}/${progress.steps}${left} · BasedXL`;
}

// --- internal ---

const stageTexts: Record<string, string> = {
  load: "Loading the model",
  adapt: "Merging LoRAs",
  text: "Reading the prompt",
  encode: "Encoding the image",
  decode: "Decoding",
};
