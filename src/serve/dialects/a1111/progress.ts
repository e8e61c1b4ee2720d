/**
 * The job that runs as A1111's progress shows it: the client's own first, else any other.
 * Source: A1111 and Forge, modules/api/api.py (progressapi), modules/progress.py, shared_state.py.
 */
import type { JobService, JobView } from "../../jobs/types.ts";
import { timestampOf } from "./answers.ts";
import { jobDataOf } from "./job-data.ts";
import type { LivePreviews } from "./live-previews.ts";

/** The job that the client sees; null while none runs. */
export function shownJob(jobs: JobService, client: string): JobView | null {
  const running = jobs.list({ state: "running" });
  return running.find(({ spec }) => spec.client === client) ?? running.at(-1) ?? null;
}

/** GET /sdapi/v1/progress. */
export function progressAnswer(job: JobView | null, previews: LivePreviews | null, now: number) {
  if (job === null) {
    const idle = { progress: 0, eta_relative: 0, state: stateOf(null) };
    return { ...idle, current_image: null, textinfo: null };
  }
  const state = stateOf(job);
  // A1111 begins above 0, so as not to divide by it.
  const progress = Math.min(1, 0.01 + doneShare(job));
  const preview = previews?.of(job.id) ?? null;
  return {
    progress,
    eta_relative: secondsLeft(job, progress, now),
    state,
    current_image: preview === null ? null : Buffer.from(preview.bytes).toString("base64"),
    textinfo: null,
  };
}

interface AskedTask {
  job: JobView | null;
  /** Of the last preview that the client has. */
  previewNumber: number;
  wantsPreview: boolean;
}

/** POST /internal/progress, which A1111's own page asks. */
export function taskProgress(
  jobs: JobService,
  previews: LivePreviews,
  { job, previewNumber, wantsPreview }: AskedTask,
  now: number,
) {
  const active = job?.state === "running";
  const queued = job?.state === "queued";
  const completed = job !== null && !active && !queued;
  if (!active) {
    const count = jobs.list({ state: "queued" }).length;
    const textinfo = queued ? `In queue: ${(job.position ?? 0) + 1}/${count}` : "Waiting...";
    const none = { progress: null, eta: null, live_preview: null, id_live_preview: -1 };
    return { active, queued, completed, ...none, textinfo };
  }
  const progress = doneShare(job);
  const preview = wantsPreview ? previews.of(job.id) : null;
  const isNew = preview !== null && preview.number !== previewNumber;
  return {
    ...{ active, queued, completed, progress },
    eta: progress > 0 ? secondsLeft(job, progress, now) : null,
    live_preview: isNew
      ? `data:image/jpeg;base64,${Buffer.from(preview.bytes).toString("base64")}`
      : null,
    id_live_preview: isNew ? preview.number : previewNumber,
    textinfo: null,
  };
}

/** GET /internal/pending-tasks. */
export function pendingTasks(jobs: JobService) {
  const queued = jobs.list({ state: "queued" }).reverse();
  const tasks = queued.map((job) => jobDataOf(job)?.taskId ?? job.id);
  return { size: tasks.length, tasks };
}

// --- internal ---

function stateOf(job: JobView | null) {
  const flags = { skipped: false, interrupted: false, stopping_generation: false };
  if (job === null) {
    const none = { job: "", job_count: 0, job_timestamp: "0", job_no: 0 };
    return { ...flags, ...none, sampling_step: 0, sampling_steps: 0 };
  }
  const { iterations, number } = iterationsOf(job);
  const { step = 0, steps = job.spec.request.stepCount ?? 0 } = job.progress ?? {};
  return {
    ...flags,
    job: iterations > 1 ? `Batch ${number + 1} out of ${iterations}` : "scripts_txt2img",
    job_count: iterations,
    job_timestamp: timestampOf(job.startedAt ?? job.createdAt),
    job_no: number,
    ...{ sampling_step: step, sampling_steps: steps },
  };
}

/** A1111's iterations of a job, and how many of them are done. */
function iterationsOf(job: JobView): { iterations: number; number: number } {
  const count = job.spec.request.imageCount ?? 1;
  const iterations = jobDataOf(job)?.iterations ?? count;
  const done = Math.floor((job.images.length * iterations) / count);
  return { iterations, number: Math.min(done, iterations - 1) };
}

/** 0 to 1, of all steps of all images. */
function doneShare(job: JobView): number {
  const count = job.spec.request.imageCount ?? 1;
  const { step = 0, steps = 0, pass = { index: 1, count: 1 } } = job.progress ?? {};
  const ofPass = steps > 0 ? Math.min(1, step / steps) : 0;
  const ofImage = (pass.index - 1 + ofPass) / pass.count;
  return Math.min(1, (job.images.length + ofImage) / count);
}

/** As the job says, else in proportion. */
function secondsLeft(job: JobView, progress: number, now: number): number {
  const said = job.progress?.secondsLeft;
  if (said !== undefined && said !== null) return said;
  const passed = Math.max(0, now - (job.startedAt ?? now)) / 1000;
  return passed / progress - passed;
}
