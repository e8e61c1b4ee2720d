/**
 * Images of running jobs become files while the next ones are computed: encoded on the threads of
 * the image library, with their parameters, written whole, then noted and told.
 */
import { encodeFile } from "../../image.ts";
import type { HashCache } from "../../library/hashes.ts";
import { defaultHashWaitMs, startHashing, textsOfImage } from "../../metadata.ts";
import type { GeneratedImage, PlannedRequest, PreparedPipeline } from "../../pipeline.ts";
import type { ImageStore } from "../image-store.ts";
import type { ServeConfig } from "../settings.ts";
import type { LiveJob } from "./live.ts";
import type { JobReports } from "./records.ts";

export interface ImageDependencies {
  outputs: ImageStore;
  reports: JobReports;
  config: Pick<ServeConfig, "format" | "metadata">;
  hashCache: HashCache;
}

/** The images of one request to a pipeline. */
export class ImageFiles implements AsyncDisposable {
  private readonly writing = new Set<Promise<void>>();
  private readonly hashes: ReturnType<typeof startHashing> | null;
  private failure: { error: unknown } | null = null;

  constructor(
    private readonly dependencies: ImageDependencies,
    prepared: PreparedPipeline,
    plan: PlannedRequest,
    private readonly signal: AbortSignal,
  ) {
    const { config, hashCache } = dependencies;
    this.hashes = config.metadata ? startHashing({ ...prepared, plan }, hashCache) : null;
  }

  /** Begins to write; waits while many are being written. Throws where an earlier one failed. */
  async take(job: LiveJob, index: number, image: GeneratedImage): Promise<void> {
    if (this.failure !== null) throw this.failure.error;
    const task = this.write(job, index, image)
      .catch((error: unknown) => {
        this.failure ??= { error };
      })
      .finally(() => this.writing.delete(task));
    this.writing.add(task);
    if (this.writing.size >= writingMax) await Promise.race(this.writing);
  }

  /** Resolves when all are written, and rejects where one could not be. */
  async settled(): Promise<void> {
    await Promise.all(this.writing);
    if (this.failure !== null) throw this.failure.error;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.writing);
    this.hashes?.[Symbol.dispose]();
  }

  // --- internal ---

  private async write(job: LiveJob, index: number, image: GeneratedImage): Promise<void> {
    const { stored } = job;
    const { outputs, reports, config } = this.dependencies;
    // Of a job that was interrupted, an image may be there already.
    if (stored.images.some((each) => each.index === index)) return;
    const { format = config.format, quality } = stored.spec;
    await this.hashes?.settled(defaultHashWaitMs, () => {}, this.signal);
    const texts = this.hashes === null ? undefined : textsOfImage(image, this.hashes);
    const { bytes } = await encodeFile(format, image, { texts, quality });
    const { width, height } = image;
    const seed = String(image.seed);
    const named = { index, seed, width, height };
    const written = await outputs.write(job.id, named, { bytes, format }, this.signal);
    reports.written(job, written);
  }
}

// --- internal ---

/** Images that are written at the same time. */
const writingMax = 3;
