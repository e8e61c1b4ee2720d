/**
 * Images that are enlarged without a job of their own: each waits for its turn among the jobs of a
 * model that is loaded, beside which its upscaler is.
 */
import { BasedXLError } from "../errors.ts";
import type { Size } from "../image/encoder.ts";
import type { RawImage } from "../image/read.ts";
import type { Pipeline } from "../pipeline.ts";
import { HttpError } from "./environment.ts";
import { QueueFull } from "./jobs/types.ts";
import type { PipelinePool } from "./pool.ts";

interface UpscaleOptions {
  /** A name of the server's list. */
  upscaler: string;
  size: Size;
}

interface UpscalingOptions {
  pool: Pick<PipelinePool, "loadedPipeline">;
  /** Images that may wait. */
  waitingMax: number;
  /** Of a pipeline whose session is lost: no job may come that would find out. */
  onLost: (pipeline: Pipeline) => void;
}

export class Upscaling {
  private waiting = 0;
  private readonly stopped = new AbortController();

  constructor(private readonly options: UpscalingOptions) {}

  /** RGB. Rejects with `QueueFull`, with "bad-model" and the like, and where no model is loaded. */
  async upscale(image: RawImage, options: UpscaleOptions): Promise<RawImage> {
    const { pool, waitingMax, onLost } = this.options;
    const pipeline = pool.loadedPipeline();
    if (pipeline === null) {
      const retry = { "Retry-After": String(retrySeconds) };
      throw new HttpError(
        503,
        "loading",
        "No model is loaded yet: try again soon, or see /ready.",
        retry,
      );
    }
    if (this.waiting >= waitingMax) {
      throw new QueueFull(retrySeconds, "Too many images are being enlarged: try again later.");
    }
    this.waiting += 1;
    try {
      return await pipeline.upscale(image, { ...options, signal: this.stopped.signal });
    } catch (error) {
      if (error instanceof BasedXLError && error.sessionLost) onLost(pipeline);
      throw error;
    } finally {
      this.waiting -= 1;
    }
  }

  /** Within a tile. */
  stop(): void {
    this.stopped.abort();
  }
}

// --- internal ---

const retrySeconds = 10;
