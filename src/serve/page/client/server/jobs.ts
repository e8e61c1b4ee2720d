/**
 * Jobs as the server tells of them: a snapshot, then events. An event that comes twice, as after a
 * reconnection, changes nothing the second time. An answer may be older than events that overtook
 * it: those are applied to it again.
 */
import { computed, signal } from "@preact/signals";
import { addressOf, call, callJson } from "./api.ts";
import type { Job, JobEvent, JobRequest } from "./wire.ts";

/** By id. */
export const jobs = signal<ReadonlyMap<string, Job>>(new Map());
/** Object URLs of the latest previews, by `previewKey`. */
export const previews = signal<ReadonlyMap<string, string>>(new Map());
/** The last layout in words, by job. */
export const layouts = signal<ReadonlyMap<string, string>>(new Map());

/** What runs, then what waits, in the order of the queue. */
export const activeJobs = computed(() =>
  [...jobs.value.values()].filter(isActive).sort((a, b) => {
    return (a.position ?? -1) - (b.position ?? -1) || a.createdAt - b.createdAt;
  }),
);
export const waitingCount = computed(
  () => activeJobs.value.filter(({ state }) => state === "queued").length,
);

/** Counts images that were finished, so that the gallery looks again. */
export const finishedImageCount = signal(0);

export function isActive({ state }: Job): boolean {
  return state === "queued" || state === "running";
}

/** Where an image is: the file, or a preview while there is none; null for neither. */
export function pictureOf(job: Job, index: number): string | null {
  if (job.images.some((image) => image.index === index)) {
    return addressOf(`/jobs/${job.id}/images/${index}`);
  }
  return previews.value.get(previewKey(job.id, index)) ?? null;
}

export async function submit(request: JobRequest): Promise<Job> {
  return await answered(
    () => callJson<Job>("/jobs", { method: "POST", json: request }),
    (job) => keep(job),
  );
}

export async function loadJob(id: string): Promise<Job> {
  return await answered(
    () => callJson<Job>(`/jobs/${encodeURIComponent(id)}`),
    (job) => keep(job),
  );
}

/** Replaces what is known of the newest jobs. */
export async function loadJobs(): Promise<void> {
  const before = new Set(jobs.value.keys());
  await answered(
    () => callJson<{ jobs: Job[] }>(`/jobs?limit=${listedCount}`),
    ({ jobs: listed }) => {
      for (const job of listed) keep(job);
      // A server that forgot a job will send no more events of it.
      const known = new Set(listed.map(({ id }) => id));
      const isForgotten = (job: Job) => before.has(job.id) && !known.has(job.id) && isActive(job);
      const others = [...jobs.value.values()].filter((job) => !isForgotten(job));
      jobs.value = new Map(others.map((job) => [job.id, job]));
    },
  );
}

export async function cancelJob(id: string): Promise<void> {
  await call(`/jobs/${encodeURIComponent(id)}`, { method: "DELETE" });
}

/** Cancels what waits ("rest"), or also what runs ("all"). */
export async function cancelMany(what: "rest" | "all"): Promise<void> {
  await call("/cancel", { method: "POST", json: { what } });
}

/** Takes an event over. Jobs of other tabs and clients are asked for at their first event. */
export function apply(event: JobEvent): void {
  if (questionCount > 0) overtaking.push(event);
  const { jobId } = event;
  const job = jobs.value.get(jobId);
  if (event.type === "start") layouts.value = new Map(layouts.value).set(jobId, event.layout);
  if (event.type === "image") finishedImageCount.value++;
  if (job === undefined) loadOnce(jobId);
  else if (event.type === "preview") {
    if (isActive(job)) showPreview(previewKey(jobId, event.index), event.data);
  } else change(job, event);
}

// --- internal ---

const listedCount = 50;
const asked = new Set<string>();

/** Requests for jobs that are not answered yet, and what happened since the first of them. */
let questionCount = 0;
const overtaking: JobEvent[] = [];

async function answered<Answer>(
  ask: () => Promise<Answer>,
  take: (answer: Answer) => void,
): Promise<Answer> {
  questionCount += 1;
  const first = overtaking.length;
  try {
    const answer = await ask();
    take(answer);
    for (const event of overtaking.slice(first)) {
      const job = jobs.value.get(event.jobId);
      if (job !== undefined) change(job, event);
    }
    return answer;
  } finally {
    questionCount -= 1;
    if (questionCount === 0) overtaking.length = 0;
  }
}

function change(job: Job, event: JobEvent): void {
  const next = changed(job, event);
  if (next === job) return;
  keep(next);
  // Of a job that was cancelled the last preview is all that there is.
  if (next.state === "done") forgetPreviews(job.id);
}

function loadOnce(id: string): void {
  if (asked.has(id)) return;
  asked.add(id);
  loadJob(id).catch(() => {});
}

function keep(job: Job): void {
  jobs.value = new Map(jobs.value).set(job.id, job);
}

/** The job after the event; the same object where the event is old. */
function changed(job: Job, event: JobEvent): Job {
  if (!isActive(job)) return job;
  switch (event.type) {
    case "queued":
      return { ...job, state: "queued", position: event.position, progress: null };
    case "start":
      return { ...job, state: "running", position: null };
    case "progress": {
      const { stage, step, steps, secondsPerStep, secondsLeft, pass } = event;
      const progress = { stage, step, steps, secondsPerStep, secondsLeft, pass };
      return { ...job, state: "running", position: null, progress };
    }
    case "image": {
      if (job.images.some(({ index }) => index === event.index)) return job;
      const { index, seed, width, height, file } = event;
      const image = { index, seed, width, height, file, bytes: 0, type: "" };
      return { ...job, images: [...job.images, image].sort((a, b) => a.index - b.index) };
    }
    case "warning":
      if (job.warnings.includes(event.message)) return job;
      return { ...job, warnings: [...job.warnings, event.message] };
    case "done":
      return { ...job, state: "done", position: null, progress: null };
    case "failed":
      return {
        ...{ ...job, state: "failed", position: null, progress: null },
        error: { code: event.code, message: event.message },
      };
    case "cancelled":
      return { ...job, state: "cancelled", position: null, progress: null };
    default:
      return job;
  }
}

function previewKey(id: string, index: number): string {
  return `${id}/${index}`;
}

function showPreview(key: string, base64: string): void {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const url = URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }));
  const next = new Map(previews.value);
  release(next.get(key));
  previews.value = next.set(key, url);
}

function forgetPreviews(id: string): void {
  const next = new Map(previews.value);
  for (const [key, url] of previews.value) {
    if (!key.startsWith(`${id}/`)) continue;
    release(url);
    next.delete(key);
  }
  previews.value = next;
}

/** Later, since an image may still be loading it. */
function release(url: string | undefined): void {
  if (url !== undefined) setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
