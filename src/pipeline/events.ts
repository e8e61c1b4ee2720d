/**
 * What a pipeline reports while a job runs. Every event names its job, since several may wait.
 */
import type { Progress } from "./session.ts";

/** Which images of a request are at work, counted from 1: those of one batch. */
export interface ImageRange {
  first: number;
  last: number;
  count: number;
}

/** The progress of a batch, as views show it. */
export interface JobProgress extends Progress {
  images: ImageRange;
}

/** The job's turn has come. */
export interface StartEvent {
  type: "start";
  jobId: string;
  imageCount: number;
  /** How ranks share the first batch, such as "4 ranks = 2 guidance branches × 2 patches …". */
  layout: string;
}

/** Some 200 times a second while a batch is computed; a handler that takes longer gets fewer. */
export interface ProgressEvent extends JobProgress {
  type: "progress";
  jobId: string;
}

/** An approximation of an image that is being denoised; see `preview.ts`. */
export interface PreviewEvent {
  type: "preview";
  jobId: string;
  /** The image's place in the request, from 0. */
  index: number;
  /** Finished steps. */
  stepIndex: number;
  /** Pixels: those of the image divided by the VAE's factor, 8 for SDXL. */
  width: number;
  height: number;
  /** RGB bytes, height × width × 3. */
  pixels: Uint8Array;
}

/** One image, once it is decoded. */
export interface ImageEvent extends GeneratedImage {
  type: "image";
  jobId: string;
}

export interface WarningEvent {
  type: "warning";
  jobId: string;
  /** A whole sentence; the result lists all of them again. */
  message: string;
}

export type PipelineEvent = StartEvent | ProgressEvent | PreviewEvent | ImageEvent | WarningEvent;

export interface GeneratedImage {
  /** Its place in the request, from 0. */
  index: number;
  seed: bigint;
  /** Pixels. */
  width: number;
  height: number;
  /** RGB bytes, height × width × 3, row by row from the top. */
  pixels: Uint8Array;
}
