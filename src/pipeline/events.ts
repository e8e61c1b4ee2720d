/**
 * Events of a pipeline's jobs. Every event has its job's id, since several jobs may be queued.
 */
import type { ImageOrigin } from "./origin.ts";
import type { Progress } from "./progress.ts";
import type { ImageRange } from "./request.ts";

/** Progress of the current batch. */
export interface JobProgress extends Progress {
  images: ImageRange;
  /** Absent where images have one pass. */
  pass?: Pass | undefined;
}

/** Counted from 1; the second one enlarges. */
export interface Pass {
  index: number;
  count: number;
}

/** The job starts to run. */
export interface StartEvent {
  type: "start";
  jobId: string;
  imageCount: number;
  /** How ranks share the first batch, such as "4 ranks = 2 guidance branches × 2 patches …". */
  layout: string;
}

/** Sent about 200 times a second while a batch runs, less often to a slow handler. */
export interface ProgressEvent extends JobProgress {
  type: "progress";
  jobId: string;
}

/** An approximation of an image that is being denoised; see `preview.ts`. */
export interface PreviewEvent {
  type: "preview";
  jobId: string;
  /** Index of the image in the request. */
  index: number;
  /** Finished steps. */
  stepIndex: number;
  /**
   * Size in pixels, in the present pass: with a TAESD that of the image, else divided by the VAE's
   * factor, 8 for SDXL.
   */
  width: number;
  height: number;
  /** RGB bytes, height × width × 3. */
  pixels: Uint8Array;
}

/** An image that is decoded. */
export interface ImageEvent extends GeneratedImage {
  type: "image";
  jobId: string;
}

export interface WarningEvent {
  type: "warning";
  jobId: string;
  /** A sentence; the result lists all warnings again. */
  message: string;
}

export type PipelineEvent = StartEvent | ProgressEvent | PreviewEvent | ImageEvent | WarningEvent;

export interface GeneratedImage {
  /** Index in the request. */
  index: number;
  seed: bigint;
  /** Pixels. */
  width: number;
  height: number;
  /** RGB bytes, height × width × 3. */
  pixels: Uint8Array;
  /** What it was made with, for the functions that write it down. */
  origin: ImageOrigin;
}
