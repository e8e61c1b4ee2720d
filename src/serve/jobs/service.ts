/**
 * The service of jobs: takes them, keeps them, runs them in fair order, and tells what happens. It
 * goes on where the server before it ended, however that was.
 */
import { BasedXLError, badOption, cancelled } from "../../errors.ts";
import { JobQueue } from "../../pipeline/queue.ts";
import { finalSize, noImages, type ReadImages } from "../../pipeline.ts";
import { chooseSeed } from "../../settings/setting.ts";
import type { Catalog } from "../catalog.ts";
import type { CatalogModel } from "../catalog-model.ts";
import { HttpError } from "../environment.ts";
import { inputSettings } from "../input-files.ts";
import type { Inputs } from "../inputs.ts";
import type { ServeLog } from "../log.ts";
import { Metrics } from "../metrics.ts";
import type { Outputs } from "../outputs.ts";
import type { ServeConfig } from "../settings.ts";
import { SpeedMeter } from "../share.ts";
import { EventLog, isLast } from "./events.ts";
import { seedsOf, unnotedImages } from "./generation.ts";
import { LiveJob } from "./live.ts";
import { FairQueue } from "./queue.ts";
import { endWaiting, JobRecords, type JobReports, type JobRunner } from "./records.ts";
import type { JobStore, StoredJob } from "./store.ts";
import {
  type InputImages,
  type JobEvent,
  type JobFilter,
  type JobService,
  type JobSpec,
  type JobView,
  QueueFull,
} from "./types.ts";

interface ServiceOptions {
  config: ServeConfig;
  catalog: Catalog;
  store: JobStore;
  outputs: Outputs;
  inputs: Inputs;
  log: ServeLog;
  loadedModels: () => number;
  /** Who runs the jobs. */
  createRunner: (dependencies: RunnerDependencies) => JobRunner;
}

/** What the service gives to its runner. */
interface RunnerDependencies {
  queue: FairQueue<LiveJob>;
  reports: JobReports;
  speeds: SpeedMeter;
}

export class QueuedJobs implements JobService {
  readonly metrics: Metrics;
  private readonly queue: FairQueue<LiveJob>;
  private readonly events_: EventLog;
  private readonly records: JobRecords;
  private readonly runner: JobRunner;
  private readonly speeds = new SpeedMeter();
  /** Images of requests are decoded one at a time: each may take hundreds of megabytes. */
  private readonly reading = new JobQueue();
  /** Jobs that have not ended, by id. */
  private readonly live = new Map<string, LiveJob>();
  /** What was said of the places in the queue. */
  private readonly positions = new Map<string, number>();
  /** null until it stops. */
  private stopped: Promise<void> | null = null;
  private endedCount = 0;

  constructor(private readonly options: ServiceOptions) {
    const { config, store, log, loadedModels } = options;
    this.queue = new FairQueue(config.maxQueue);
    this.events_ = new EventLog(store);
    this.metrics = new Metrics({
      queueLength: () => this.queue.length,
      runningCount: () => this.runner.jobs.length,
      unfinishedCount: () => this.live.size,
      loadedModels,
    });
    const { speeds } = this;
    this.records = new JobRecords({
      ...{ store, log, events: this.events_, metrics: this.metrics, speeds },
      onEnd: (job) => this.forget(job),
      onQueueChange: () => this.tellPositions(),
    });
    this.runner = options.createRunner({
      ...{ queue: this.queue, reports: this.records, speeds },
    });
  }

  /** Takes up what an earlier server left. Call it before the first job. */
  async resume(): Promise<void> {
    const { store, log, config } = this.options;
    const unfinished = store.unfinished();
    for (const stored of unfinished) await this.resumeJob(stored);
    store.prune(config.keepJobs);
    this.keepInputs();
    if (unfinished.length > 0) log.info("jobs_resumed", { count: unfinished.length });
    this.tellPositions();
    this.runner.schedule();
  }

  async submit(spec: JobSpec, images: InputImages | null): Promise<JobView> {
    if (images === null) return this.add(spec, noImages);
    // Before the image is read, which takes longer than to refuse it.
    this.checkRoom();
    const { catalog, inputs, config } = this.options;
    await inputs.checkSizes(images, config.maxPixels);
    const request = { ...spec.request, ...inputSettings(images) };
    const model = catalog.model(spec);
    const read = await this.reading.run(undefined, () => catalog.images(model, request));
    return await inputs.keep(images, (names) => this.add({ ...spec, inputs: names }, read));
  }

  get(id: string): JobView | null {
    const job = this.live.get(id);
    if (job !== undefined) return this.viewOf(job);
    const stored = this.options.store.get(id);
    return stored && keptView(stored);
  }

  list(filter: JobFilter = {}): JobView[] {
    return this.options.store.list(filter).map((stored) => {
      const job = this.live.get(stored.id);
      return job === undefined ? keptView(stored) : this.viewOf(job);
    });
  }

  cancel(id: string): boolean {
    const job = this.live.get(id);
    return job !== undefined && this.cancelThose([job], undefined) > 0;
  }

  cancelRest(client?: string): number {
    return this.cancelThose(this.queue.inOrder(), client);
  }

  cancelAll(client?: string): number {
    return this.cancelThose([...this.live.values()], client);
  }

  events(id: string | "all", afterId?: number, signal?: AbortSignal): AsyncIterable<JobEvent> {
    const first = afterId ?? (id === "all" ? this.events_.lastId : 0);
    return this.events_.read(id, first, () => id === "all" || this.live.has(id), signal);
  }

  async wait(id: string, signal?: AbortSignal): Promise<JobView> {
    if (this.live.has(id)) {
      for await (const event of this.events(id, this.events_.lastId, signal)) {
        if (isLast(event)) break;
      }
    }
    if (signal?.aborted) throw cancelled("Stopped before the job had ended.");
    const view = this.get(id);
    if (view === null) throw notFound();
    if (view.endedAt === null) throw stopping();
    return view;
  }

  async imageBytes(id: string, index: number): Promise<Uint8Array> {
    const image = this.get(id)?.images.find((each) => each.index === index);
    const path = image && this.options.outputs.pathOf(image.file);
    if (!path) throw notFound();
    return await Bun.file(path).bytes();
  }

  async fileBytes(file: string): Promise<Uint8Array | null> {
    const path = this.options.store.hasFile(file) ? this.options.outputs.pathOf(file) : null;
    return path === null ? null : await Bun.file(path).bytes();
  }

  /** Stops what runs, so that the next server takes it up; no job is taken any more. */
  stop(): Promise<void> {
    this.stopped ??= this.runner.stop().finally(() => this.events_.close());
    return this.stopped;
  }

  get isReady(): boolean {
    return this.stopped === null;
  }

  // --- internal ---

  private checkRoom(): void {
    if (!this.isReady) throw stopping();
    if (!this.queue.isFull) return;
    this.metrics.refused.inc();
    throw new QueueFull(this.speeds.secondsToFree(this.runner.places));
  }

  private add(spec: JobSpec, read: ReadImages): JobView {
    this.checkRoom();
    const job = this.checked(spec, read);
    this.options.store.add(job.stored);
    this.live.set(job.id, job);
    this.queue.add(job);
    this.tellPositions();
    const view = this.viewOf(job);
    queueMicrotask(() => this.runner.schedule());
    return view;
  }

  private checked(spec: JobSpec, read: ReadImages): LiveJob {
    const { catalog, config } = this.options;
    const { previewSteps = 0, priority = 0, quality } = spec;
    const model = catalog.model(spec);
    const { seed = chooseSeed(), imageCount = 1, ...rest } = spec.request;
    checkWhole("priority", priority, -10, 10);
    checkWhole("preview_steps", previewSteps, 0, 1000);
    if (quality !== undefined) checkWhole("quality", quality, 1, 100);
    if (imageCount > config.maxImages) {
      throw badOption(`A job has at most ${config.maxImages} images here, not ${imageCount}.`);
    }
    const request = { ...rest, seed, imageCount };
    const seeds = seedsOf(request);
    const { inputs } = spec;
    const from = inputs && this.options.inputs.requestOf(inputs);
    const plan = catalog.plan(model, { ...rest, ...from, seeds }, { read });
    const { width, height } = finalSize(plan);
    const megapixels = (width * height) / 1e6;
    if (megapixels > config.maxPixels) {
      throw badOption(
        `Images have at most ${config.maxPixels} million pixels here, not ${megapixels}.`,
      );
    }
    const stored: StoredJob = {
      ...{ id: Bun.randomUUIDv7(), state: "queued", createdAt: Date.now(), attempts: 0 },
      spec: { ...spec, request, ...namesOf(model) },
      ...{ startedAt: null, endedAt: null, images: [], warnings: [], error: null },
    };
    return new LiveJob(stored, model);
  }

  private async resumeJob(stored: StoredJob): Promise<void> {
    const { catalog, config, outputs, store } = this.options;
    const job = new LiveJob(stored, this.modelOf(stored) ?? catalog.models[0]!);
    this.live.set(job.id, job);
    for (const image of await unnotedImages(outputs, stored)) {
      if (store.addImage(stored.id, image)) stored.images.push(image);
    }
    const { attempts } = stored;
    job.requeue(attempts);
    if (stored.images.length === seedsOf(stored.spec.request).length) {
      return endWaiting(this.records, job);
    }
    if (this.modelOf(stored) === null) {
      const { model, vae, refiner } = stored.spec;
      const withVae = vae === undefined ? "" : ` with the VAE ${vae}`;
      const withRefiner = refiner === undefined ? "" : ` and the refiner ${refiner}`;
      const message = `The server no longer has the model ${model}${withVae}${withRefiner}.`;
      return endWaiting(this.records, job, { code: "bad-model", message });
    }
    if (this.runner.isLocal && attempts >= config.maxAttempts) {
      const message = `The server ended ${attempts} times while it ran: it is not tried again.`;
      return endWaiting(this.records, job, { code: "interrupted", message });
    }
    store.update(stored);
    this.queue.add(job);
  }

  private modelOf({ spec }: StoredJob) {
    try {
      return this.options.catalog.model(spec);
    } catch (error) {
      if (error instanceof BasedXLError) return null;
      throw error;
    }
  }

  private viewOf(job: LiveJob): JobView {
    if (job.stored.state !== "queued") return job.view(null);
    // What is not in the queue any more, and does not run yet, is the next.
    return job.view(Math.max(0, this.queue.inOrder().indexOf(job)));
  }

  private cancelThose(jobs: readonly LiveJob[], client: string | undefined): number {
    const wanted = jobs
      .filter((job) => client === undefined || job.client === client)
      .filter(({ cancelledBy }) => cancelledBy === null);
    for (const job of wanted) {
      job.cancelledBy = "client";
      if (this.queue.remove(job.id) === null) job.onCancel();
      else endWaiting(this.records, job);
    }
    this.tellPositions();
    return wanted.length;
  }

  /** Says the place of those whose place has changed; of a long queue, of the first ones. */
  private tellPositions(): void {
    for (const [position, { id }] of this.queue.inOrder().entries()) {
      if (position >= toldPlaces && this.positions.has(id)) continue;
      if (this.positions.get(id) === position) continue;
      this.positions.set(id, position);
      this.events_.add(id, { type: "queued", position });
    }
  }

  /** Removes images that no job starts from any more, where `ended` had some. */
  private keepInputs(ended?: StoredJob): void {
    if (ended !== undefined && ended.spec.inputs === undefined) return;
    const specs = [...this.live.values()].map(({ stored: { spec } }) => spec);
    this.options.inputs.keepOnly(specs);
  }

  private forget({ id, stored }: LiveJob): void {
    this.live.delete(id);
    this.positions.delete(id);
    this.keepInputs(stored);
    this.endedCount += 1;
    if (this.endedCount % pruneEvery === 0) this.options.store.prune(this.options.config.keepJobs);
  }
}

// --- internal ---

const toldPlaces = 100;
/** Jobs between two looks at how many are kept. */
const pruneEvery = 100;

function keptView(stored: StoredJob): JobView {
  return { ...stored, position: null, progress: null };
}

/** As a job keeps it. */
function namesOf({ id, vae, refiner }: CatalogModel): Pick<JobSpec, "model" | "vae" | "refiner"> {
  return { model: id, ...(vae && { vae }), ...(refiner && { refiner }) };
}

function checkWhole(name: string, value: number, min: number, max: number): void {
  if (Number.isInteger(value) && value >= min && value <= max) return;
  throw badOption(`${name} must be a whole number from ${min} to ${max}, not ${value}.`);
}

function notFound(): HttpError {
  return new HttpError(404, "not-found", "There is no such job or image.");
}

function stopping(): HttpError {
  return new HttpError(503, "stopping", "The server is stopping: try again in a moment.", {
    "Retry-After": "10",
  });
}
