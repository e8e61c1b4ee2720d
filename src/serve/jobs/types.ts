/**
 * The vocabulary of jobs: what is asked for, what is known of it, what happens to it, and the
 * service that every route and dialect calls. A job's id and an event's id outlive the process.
 */
import type { ImageFormat } from "../../image/encoder.ts";
import type { RequestSettings } from "../../settings/table.ts";
import type { InputFiles } from "../input-files.ts";

export interface JobSpec {
  /** As `requestSchema` validates it. */
  request: RequestSettings;
  /** A name or id of the capability document's list. Default: the server's first model. */
  model?: string | undefined;
  /** A VAE of that list, in the place of the model's. */
  vae?: string | undefined;
  /** A model of that list that finishes the images. Default: as the server is set. */
  refiner?: string | undefined;
  /** -10 to 10, higher first. Default 0. */
  priority?: number | undefined;
  /** Who asks, for fairness: an API key's name, else a cookie or an address. */
  client: string;
  /** Steps between previews; 0, the default, for none. */
  previewSteps?: number | undefined;
  /** Default: as the server is set, PNG. */
  format?: ImageFormat | undefined;
  /** 1 to 100, of JPEG, WebP and AVIF. */
  quality?: number | undefined;
  /** The images that it reads, by their names in `Inputs`; set by the service alone. */
  inputs?: InputFiles<string> | undefined;
  dialect: "own" | "openai" | "a1111" | "comfyui";
  /** Kept with the job, for answers after a restart; JSON. */
  dialectData?: unknown;
}

export const jobStates = ["queued", "running", "done", "failed", "cancelled"] as const;
export type JobState = (typeof jobStates)[number];

export interface JobError {
  code: string;
  /** A sentence. */
  message: string;
}

export interface JobProgress {
  /** "adapt", "text", "denoise", "decode", or "load" while the model loads. */
  stage: string;
  /** Finished steps, of the images that are computed now. */
  step: number;
  steps: number;
  secondsPerStep: number | null;
  /** Of the whole job. */
  secondsLeft: number | null;
  /** Counted from 1; absent where images have one pass. */
  pass?: { index: number; count: number } | undefined;
}

export interface JobImage {
  /** Index in the request. */
  index: number;
  seed: string;
  width: number;
  height: number;
  /** Its name in the folder of outputs. */
  file: string;
  bytes: number;
  /** Of MIME. */
  type: string;
}

export interface JobView {
  id: string;
  state: JobState;
  spec: JobSpec;
  /** 0 for the next; null where the job does not wait. */
  position: number | null;
  /** Milliseconds since 1970, as all times. */
  createdAt: number;
  startedAt: number | null;
  endedAt: number | null;
  progress: JobProgress | null;
  images: JobImage[];
  warnings: string[];
  error: JobError | null;
  /** How often the job was started. */
  attempts: number;
}

/** Ids rise over all jobs, also across restarts. */
export type JobEvent = { id: number; jobId: string; at: number } & JobHappening;

export type JobHappening =
  | { type: "queued"; position: number }
  | { type: "start"; layout: string }
  | ({ type: "progress" } & JobProgress)
  | { type: "preview"; index: number; step: number; type_: "image/jpeg"; data: Uint8Array }
  | ({ type: "image" } & Omit<JobImage, "bytes" | "type">)
  | { type: "warning"; message: string }
  | { type: "done" }
  | ({ type: "failed" } & JobError)
  | { type: "cancelled"; by: string };

export interface JobFilter {
  state?: JobState | undefined;
  client?: string | undefined;
  limit?: number | undefined;
  /** Jobs older than this one. */
  before?: string | undefined;
}

/** Bytes of image files. */
export type InputImages = InputFiles<Uint8Array>;

export interface JobService {
  /**
   * `images` are those that it reads; null for none. Rejects with `QueueFull`, or "bad-option" and
   * the like for what cannot be generated.
   */
  submit(spec: JobSpec, images: InputImages | null): Promise<JobView>;
  get(id: string): JobView | null;
  /** The newest first. */
  list(filter?: JobFilter): JobView[];
  /** False where the job has ended, or there is none. */
  cancel(id: string): boolean;
  /** Cancels what waits; resolves to how many. */
  cancelRest(client?: string): number;
  /** Cancels what waits and what runs. */
  cancelAll(client?: string): number;
  /**
   * Events after `afterId`: those that are kept, then live ones. Without `afterId` a job's begin
   * with its first, and those of all jobs ("all") now. Of one job it ends with the job's last
   * event, of all jobs with `signal`. Previews are not kept for long.
   */
  events(id: string | "all", afterId?: number, signal?: AbortSignal): AsyncIterable<JobEvent>;
  /** Resolves when the job has ended. Rejects with "cancelled" after `signal`. */
  wait(id: string, signal?: AbortSignal): Promise<JobView>;
  /** The bytes of the file. Rejects with "not-found" where there is none. */
  imageBytes(id: string, index: number): Promise<Uint8Array>;
  /** The same by the name of the file, in the folder of outputs; null where no job wrote it. */
  fileBytes(file: string): Promise<Uint8Array | null>;
}

/** The queue takes no more jobs: 429. */
export class QueueFull extends Error {
  constructor(
    readonly retryAfterSeconds: number,
    message = "The queue is full: try again later.",
  ) {
    super(message);
  }
}
