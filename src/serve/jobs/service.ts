/**
 * Jobs of one pipeline, in memory: the simplest service that generates.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { BasedXLError, badOption } from "../../errors.ts";
import { writeImage } from "../../metadata.ts";
import type { Pipeline, PipelineEvent } from "../../pipeline.ts";
import type {
  JobEvent,
  JobFilter,
  JobHappening,
  JobService,
  JobSpec,
  JobState,
  JobView,
} from "./types.ts";
import { QueueFull } from "./types.ts";

const queueMax = 16;

export class SimpleService implements JobService {
  private readonly jobs = new Map<string, JobView>();
  private readonly log: JobEvent[] = [];
  private readonly listeners = new Set<() => void>();

  constructor(
    private readonly pipeline: Pipeline,
    private readonly outputs: string,
  ) {
    mkdirSync(outputs, { recursive: true });
  }

  submit(spec: JobSpec): JobView {
    const position = this.list({ state: "queued" }).length;
    if (position >= queueMax) throw new QueueFull(10);
    const job: JobView = {
      ...{ id: Bun.randomUUIDv7(), state: "queued", spec, position, createdAt: Date.now() },
      ...{ startedAt: null, endedAt: null, progress: null, images: [], warnings: [], error: null },
      attempts: 0,
    };
    this.jobs.set(job.id, job);
    this.emit(job, { type: "queued", position });
    void this.run(job);
    return job;
  }

  get(id: string): JobView | null {
    return this.jobs.get(id) ?? null;
  }

  list({ state, client, limit = 100 }: JobFilter = {}): JobView[] {
    return [...this.jobs.values()]
      .filter((job) => (state ?? job.state) === job.state)
      .filter((job) => (client ?? job.spec.client) === job.spec.client)
      .reverse()
      .slice(0, limit);
  }

  cancel(id: string): boolean {
    return this.pipeline.cancel(id);
  }

  cancelRest(client?: string): number {
    return this.list({ state: "queued", client }).filter(({ id }) => this.cancel(id)).length;
  }

  cancelAll(client?: string): number {
    return this.list({ client }).filter(({ id }) => this.cancel(id)).length;
  }

  async *events(id: string, afterId = 0, signal?: AbortSignal): AsyncIterable<JobEvent> {
    let last = afterId;
    while (!signal?.aborted) {
      const next = this.log.find((event) => {
        return event.id > last && (id === "all" || event.jobId === id);
      });
      if (next !== undefined) {
        last = next.id;
        yield next;
        if (id !== "all" && isLast(next)) return;
        continue;
      }
      await this.somethingHappens(signal);
    }
  }

  async wait(id: string, signal?: AbortSignal): Promise<JobView> {
    for await (const _ of this.events(id, 0, signal));
    return this.jobs.get(id)!;
  }

  async imageBytes(id: string, index: number): Promise<Uint8Array> {
    const image = this.jobs.get(id)?.images.find((each) => each.index === index);
    if (!image) throw badOption("There is no such image.");
    return await Bun.file(join(this.outputs, image.file)).bytes();
  }

  // --- internal ---

  private async run(job: JobView): Promise<void> {
    const { prompt, negativePrompt, seed, imageCount: _, ...request } = job.spec.request;
    const seeds = seed === undefined ? undefined : [seed];
    try {
      await this.pipeline.generate(
        { ...request, prompt, negativePrompt, seeds },
        {
          id: job.id,
          keepImages: false,
          onEvent: (event) => this.take(job, event),
        },
      );
      this.end(job, "done", { type: "done" });
    } catch (error) {
      const code = error instanceof BasedXLError ? error.code : "internal";
      if (code === "cancelled") this.end(job, "cancelled", { type: "cancelled", by: "client" });
      else {
        const { message } = error as Error;
        job.error = { code, message };
        this.end(job, "failed", { type: "failed", code, message });
      }
    }
  }

  private async take(job: JobView, event: PipelineEvent): Promise<void> {
    if (event.type === "start") {
      job.state = "running";
      job.position = null;
      job.startedAt = Date.now();
      this.emit(job, { type: "start", layout: event.layout });
    } else if (event.type === "progress") {
      const progress = {
        ...{ stage: event.stage, step: event.stepIndex, steps: event.stepCount },
        ...{ secondsPerStep: null, secondsLeft: null },
      };
      const { stage, step } = job.progress ?? {};
      if (stage === progress.stage && step === progress.step) return;
      job.progress = progress;
      this.emit(job, { type: "progress", ...progress });
    } else if (event.type === "image") {
      const { index, width, height } = event;
      const file = `${job.id}-${index}.png`;
      const path = join(this.outputs, file);
      await writeImage(path, event);
      const image = { index, seed: String(event.seed), width, height, file };
      job.images.push({ ...image, bytes: Bun.file(path).size, type: "image/png" });
      this.emit(job, { type: "image", ...image });
    } else if (event.type === "warning") {
      job.warnings.push(event.message);
      this.emit(job, { type: "warning", message: event.message });
    }
  }

  private end(job: JobView, state: JobState, event: JobHappening): void {
    job.state = state;
    job.position = null;
    job.progress = null;
    job.endedAt = Date.now();
    this.emit(job, event);
  }

  private emit({ id: jobId }: JobView, event: JobHappening): void {
    this.log.push({ id: this.log.length + 1, jobId, at: Date.now(), ...event });
    for (const wake of [...this.listeners]) wake();
  }

  private async somethingHappens(signal: AbortSignal | undefined): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.listeners.add(resolve);
    signal?.addEventListener("abort", () => resolve(), { once: true });
    await promise;
    this.listeners.delete(resolve);
  }
}

// --- internal ---

function isLast({ type }: JobEvent): boolean {
  return type === "done" || type === "failed" || type === "cancelled";
}
