/**
 * Images that are enlarged without a job of their own: each waits for its turn among the jobs of a
 * model that is loaded, beside which its upscaler is.
 */
import type { Size } from "../image/encoder.ts";
import type { RawImage } from "../image/read.ts";
import { HttpError } from "./environment.ts";
import { QueueFull } from "./jobs/types.ts";
import type { PipelinePool } from "./pool.ts";

interface UpscaleOptions {
  /** A name of the server's list. */
  upscaler: string;
  size: Size;
}

export class Upscaling {
  private waiting = 0;
  private readonly stopped = new AbortController();

  constructor(
    private readonly pool: Pick<PipelinePool, "loadedPipeline">,
    /** Images that may wait. */
    private readonly waitingMax: number,
  ) {}

  /** RGB. Rejects with `QueueFull`, with "bad-model" and the like, and where no model is loaded. */
  async upscale(image: RawImage, options: UpscaleOptions): Promise<RawImage> {
    const pipeline = this.pool.loadedPipeline();
    if (pipeline === null) {
      const retry = { "Retry-After": String(retrySeconds) };
      throw new HttpError(
        503,
        "loading",
        "No model is loaded yet: try again soon, or see /ready.",
        retry,
      );
    }
    if (this.waiting >= this.waitingMax) {
      throw new QueueFull(retrySeconds, "Too many images are being enlarged: try again later.");
    }
    this.waiting += 1;
    try {
      return await pipeline.upscale(image, { ...options, signal: this.stopped.signal });
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
