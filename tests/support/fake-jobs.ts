/**
 * Jobs that generate nothing: a service in memory whose jobs end at once, or wait until a test lets
 * them go on. Every image is the same PNG with A1111's text.
 */
import { encodeFile } from "../../src/image.ts";
import type { Capabilities, CapabilitySource } from "../../src/serve/capabilities.ts";
import { isLast } from "../../src/serve/jobs/events.ts";
import type {
  InputImages,
  JobEvent,
  JobHappening,
  JobService,
  JobSpec,
  JobState,
  JobView,
} from "../../src/serve/jobs/types.ts";
import { Wakes } from "../../src/serve/jobs/wakes.ts";

export const fakeInfotext =
  "a house\nNegative prompt: blurry\nSteps: 3, Sampler: Euler a, Schedule type: Automatic, " +
  "CFG scale: 7, Seed: 5, Size: 64x64, Model: mini, Version: BasedXL 0.1.0";

const black = { width: 8, height: 8, pixels: new Uint8Array(8 * 8 * 3) };
const image = encodeFile("png", black, { texts: { parameters: fakeInfotext } });
const preview = encodeFile("jpeg", black);

const [jobsMax, eventsMax] = [64, 200];

export class FakeJobs implements JobService {
  /** Jobs wait before their last step until this resolves. */
  gate: Promise<unknown> = Promise.resolve();
  /** How the next jobs end where they are not cancelled. */
  failure: { code: string; message: string } | null = null;
  submitted: JobSpec[] = [];
  inputs: InputImages[] = [];
  private readonly jobs = new Map<string, JobView>();
  private readonly logs = new Map<string, Log>([["all", new Log()]]);
  private eventId = 0;
  private readonly cancelled = new Map<string, () => void>();

  async submit(spec: JobSpec, images: InputImages | null): Promise<JobView> {
    if (images !== null) this.inputs.push(images);
    this.submitted.push(spec);
    const job: JobView = {
      ...{ id: Bun.randomUUIDv7(), state: "queued", spec, position: 0, createdAt: Date.now() },
      ...{ startedAt: null, endedAt: null, progress: null, images: [], warnings: [], error: null },
      attempts: 0,
    };
    this.jobs.set(job.id, job);
    this.logs.set(job.id, new Log());
    for (const id of [...this.jobs.keys()].slice(0, -jobsMax)) {
      this.jobs.delete(id);
      this.logs.delete(id);
    }
    this.add(job, { type: "queued", position: 0 });
    const stopped = new Promise<void>((resolve) => this.cancelled.set(job.id, resolve));
    void this.run(job, stopped);
    return { ...job };
  }

  get(id: string): JobView | null {
    return this.jobs.get(id) ?? null;
  }

  list({ state, client, limit = 100 }: Parameters<JobService["list"]>[0] = {}): JobView[] {
    return [...this.jobs.values()]
      .reverse()
      .filter((job) => (state ?? job.state) === job.state)
      .filter((job) => (client ?? job.spec.client) === job.spec.client)
      .slice(0, limit);
  }

  cancel(id: string): boolean {
    const job = this.jobs.get(id);
    if (job === undefined || job.endedAt !== null) return false;
    const stop = this.cancelled.get(id);
    this.end(job, "cancelled", { type: "cancelled", by: "test" });
    stop?.();
    return true;
  }

  cancelRest(): number {
    return 0;
  }

  cancelAll(): number {
    return 0;
  }

  async *events(id: string, afterId?: number, signal?: AbortSignal): AsyncIterable<JobEvent> {
    const log = this.logs.get(id) ?? new Log();
    let last = afterId ?? (id === "all" ? this.eventId : 0);
    for (;;) {
      const next = log.events.filter((each) => each.id > last);
      for (const event of next) {
        last = event.id;
        yield event;
        if (id !== "all" && isLast(event)) return;
      }
      if (signal?.aborted) return;
      if (next.length === 0) await log.wakes.next(signal);
    }
  }

  async wait(id: string): Promise<JobView> {
    if (this.jobs.get(id)?.endedAt === null) for await (const _ of this.events(id));
    return this.jobs.get(id)!;
  }

  async fileBytes(file: string): Promise<Uint8Array | null> {
    const isThere = [...this.jobs.values()].some(({ images }) => {
      return images.some((each) => each.file === file);
    });
    return isThere ? await this.imageBytes() : null;
  }

  async imageBytes(): Promise<Uint8Array> {
    return (await image).bytes;
  }

  // --- internal ---

  private async run(job: JobView, stopped: Promise<void>): Promise<void> {
    await Promise.resolve();
    const { stepCount: steps = 4, imageCount = 1, seed = 0n } = job.spec.request;
    const isOver = () => job.endedAt !== null;
    if (isOver()) return;
    Object.assign(job, { state: "running", position: null, startedAt: Date.now(), attempts: 1 });
    this.add(job, { type: "start", layout: "1 rank" });
    for (let index = 0; index < imageCount; index++) {
      for (const step of [0, steps]) {
        job.progress = { stage: "denoise", step, steps, secondsPerStep: 1, secondsLeft: 1 };
        this.add(job, { type: "progress", ...job.progress });
        if (step > 0 || job.spec.previewSteps === 0) continue;
        const { bytes: data } = await preview;
        this.add(job, { type: "preview", index, step: 1, type_: "image/jpeg", data });
      }
      await Promise.race([this.gate, stopped]);
      if (isOver()) return;
      const found = { index, seed: String(seed + BigInt(index)), width: 64, height: 64 };
      const file = `${job.id}-${index}.png`;
      job.images.push({ ...found, file, bytes: 100, type: "image/png" });
      this.add(job, { type: "image", ...found, file });
    }
    if (this.failure === null) return this.end(job, "done", { type: "done" });
    job.error = this.failure;
    this.end(job, "failed", { type: "failed", ...this.failure });
  }

  private end(job: JobView, state: JobState, event: JobHappening): void {
    Object.assign(job, { state, endedAt: Date.now(), position: null });
    this.cancelled.delete(job.id);
    this.add(job, event);
  }

  private add({ id: jobId }: JobView, event: JobHappening): void {
    const added = { id: ++this.eventId, jobId, at: Date.now(), ...event };
    for (const id of [jobId, "all"]) this.logs.get(id)?.add(added);
  }
}

/** Events that are kept, and who waits for more. */
class Log {
  readonly events: JobEvent[] = [];
  readonly wakes = new Wakes();

  add(event: JobEvent): void {
    this.events.push(event);
    if (this.events.length > eventsMax) this.events.splice(0, eventsMax / 2);
    this.wakes.wake();
  }
}

/** A document with a model, LoRAs and an embedding. */
export function fakeCapabilities(): CapabilitySource {
  const defaults = { steps: 4, guidanceScale: 5, sampler: null, prompt: null };
  const sizes = { width: 64, height: 64, sizeMultiple: 32, kind: "base" } as const;
  const current: Capabilities = {
    ...{ samplers: [], recipes: [], qualities: [], settings: [] },
    version: "0.1.0",
    models: [
      { id: "mini", name: "mini", isDefault: true, sha256: "ab".repeat(32), ...sizes, defaults },
      { id: "other", name: "other", isDefault: false, sha256: null, ...sizes, defaults },
    ],
    loras: [{ name: "style", detail: "SDXL", hash: "0123456789ab" }],
    embeddings: [{ name: "bad" }],
    vaes: [{ name: "fp16-fix" }],
    controlnets: [{ name: "canny" }, { name: "union" }],
    upscalers: [{ name: "4x-sharp", scale: 4 }],
    ipAdapters: [{ name: "ip-adapter_sdxl" }],
    imageEncoders: [],
    sizes: [{ width: 64, height: 64, ratio: "1:1" }],
    formats: ["png", "jpeg", "webp", "avif"],
    features: {
      ...{ img2img: false, inpaint: false, controlnet: false, previews: true },
      ...{ ipAdapter: false, refiner: false },
    },
    limits: { queue: 16, images: 64, megapixels: 10, bodyMebibytes: 10 },
    ranks: { count: 1, share: "1" },
  };
  return { current: () => current, etag: () => '"0"', refresh: async () => {} };
}
