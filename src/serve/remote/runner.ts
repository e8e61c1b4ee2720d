/**
 * The server's side of the queue in Redis: gives jobs to workers, as many as they have places, so
 * that order, cancelling and places stay the server's, and takes what they report. The store of the
 * server is the truth: what Redis has lost is put in again.
 */
import { Queue, QueueEvents } from "bullmq";
import { BasedXLError } from "../../errors.ts";
import type { Catalog } from "../catalog.ts";
import { isNameOf } from "../image-store.ts";
import { mapFiles } from "../input-files.ts";
import type { Inputs } from "../inputs.ts";
import type { LiveJob } from "../jobs/live.ts";
import type { FairQueue } from "../jobs/queue.ts";
import { endWaiting, type JobReports, type JobRunner } from "../jobs/records.ts";
import { specText } from "../jobs/spec-text.ts";
import type { JobImage } from "../jobs/types.ts";
import type { ServeLog } from "../log.ts";
import type { Outputs } from "../outputs.ts";
import type { ServeConfig } from "../settings.ts";
import { outcomeOf, reportOf } from "./checked.ts";
import type { QueueConnection } from "./connection.ts";
import {
  type Announcement,
  type JobData,
  keyPrefix,
  type Outcome,
  queueNameOf,
} from "./messages.ts";
import { ObjectStore } from "./object-store.ts";

interface RemoteOptions {
  connection: QueueConnection;
  queue: FairQueue<LiveJob>;
  reports: JobReports;
  catalog: Catalog;
  outputs: Outputs;
  inputs: Inputs;
  log: ServeLog;
  config: Pick<ServeConfig, "format" | "store">;
}

/** A job that was given to the workers. */
interface Given {
  job: LiveJob;
  /** What is to be done for it, one after the other. */
  tail: Promise<void>;
  /** It had ended in Redis when it was looked at last. */
  wasEnded: boolean;
}

interface ModelQueue {
  queue: Queue<JobData, Outcome>;
  events: QueueEvents;
}

export class RemoteRunner implements JobRunner {
  readonly isLocal = false;
  private readonly queues = new Map<string, ModelQueue>();
  private readonly given = new Map<string, Given>();
  /** Jobs of the queue that Redis was asked for. */
  private known = new Set<string>();
  private workers: Announcement[] = [];
  /** Where workers put images; null where it is the folder of outputs. */
  private readonly store: ObjectStore | null;
  private readonly timer: Timer;
  private looking: Promise<void> | null = null;
  private isStopping = false;

  constructor(private readonly options: RemoteOptions) {
    for (const model of options.catalog.models) {
      this.queues.set(model.id, this.openQueue(queueNameOf(model)));
    }
    const { connection, config } = options;
    this.store = config.store === undefined ? null : ObjectStore.open(config.store);
    void connection.listen(({ type }) => {
      if (type === "workers") void this.look();
    });
    connection.redis.on("ready", () => void this.look());
    this.timer = setInterval(() => void this.look(), lookMs);
  }

  get jobs(): LiveJob[] {
    return [...this.given.values()]
      .map(({ job }) => job)
      .filter(({ stored }) => stored.state === "running");
  }

  schedule(): void {
    const { queue } = this.options;
    while (!this.isStopping) {
      const able = new Set([...this.queues.keys()].filter((id) => this.hasPlace(id)));
      const job = queue.take(({ model }) => able.has(model.id));
      if (job === null) return;
      this.give(job);
    }
  }

  get places(): number {
    return placesOf(this.workers);
  }

  /** Workers go on with what they have: the next server takes it over. */
  async stop(): Promise<void> {
    this.isStopping = true;
    clearInterval(this.timer);
    const closing = [...this.queues.values()].flatMap(({ queue, events }) => [
      events.close(),
      queue.close(),
    ]);
    // Where Redis is gone nothing answers.
    await Promise.race([Promise.allSettled(closing), Bun.sleep(closeMsMax)]);
    await this.options.connection[Symbol.asyncDispose]();
  }

  // --- internal ---

  private openQueue(name: string): ModelQueue {
    const { connection, log } = this.options;
    const options = { connection: connection.redis, prefix: keyPrefix };
    const queue = new Queue<JobData, Outcome>(name, {
      ...options,
      streams: { events: { maxLen: eventsMax } },
      defaultJobOptions: { removeOnComplete: keptAfterEnd, removeOnFail: keptAfterEnd },
    });
    const events = new QueueEvents(name, { ...options, connection: connection.duplicate() });
    const quiet = (error: Error) => log.debug("queue_error", { message: error.message });
    queue.on("error", quiet);
    events.on("error", quiet);
    events.on("active", ({ jobId }) => this.inTurn(jobId, ({ job }) => this.begin(job)));
    events.on("waiting", ({ jobId, prev }) => {
      if (prev === "active") this.inTurn(jobId, ({ job }) => this.wait(job));
    });
    events.on("progress", ({ jobId, data }) => {
      this.inTurn(jobId, ({ job }) => this.report(job, data));
    });
    events.on("completed", ({ jobId, returnvalue }) => {
      this.inTurn(jobId, ({ job }) => this.take(job, returnvalue));
    });
    events.on("failed", ({ jobId }) => this.inTurn(jobId, ({ job }) => this.fail(job)));
    return { queue, events };
  }

  /** Does something for a job that was given, after what is being done for it. */
  private inTurn(id: string, act: (given: Given) => void | Promise<void>): void {
    const given = this.given.get(id);
    if (given === undefined) return;
    const { log } = this.options;
    given.tail = given.tail
      .then(() => (this.given.get(id) === given ? act(given) : undefined))
      .catch((error: Error) => {
        if (!this.isStopping) log.warn("remote_job", { id, message: error.message });
      });
  }

  private hasPlace(modelId: string): boolean {
    const name = this.queues.get(modelId)!.queue.name;
    const able = this.workers.filter(({ models }) => Object.values(models).includes(name));
    const ofModel = [...this.given.values()].filter(({ job }) => job.model.id === modelId);
    return ofModel.length < placesOf(able) && this.given.size < this.places;
  }

  private give(job: LiveJob): void {
    const given: Given = { job, tail: Promise.resolve(), wasEnded: false };
    this.given.set(job.id, given);
    job.onCancel = () => this.inTurn(job.id, () => this.cancel(job));
    this.inTurn(job.id, () => this.add(job));
  }

  /** Under its id, so that it is there once. */
  private async add(job: LiveJob): Promise<void> {
    const { config, connection } = this.options;
    const { spec, createdAt, images } = job.stored;
    const withFormat = { ...spec, format: spec.format ?? config.format };
    const files = spec.inputs && (await this.options.inputs.read(spec.inputs));
    const inputs = files && mapFiles(files, (bytes) => bytes.toBase64());
    const data = { spec: specText(withFormat), createdAt, images, inputs: inputs ?? null };
    await this.queueOf(job).add("job", data, { jobId: job.id });
    connection.notify({ type: "added" });
  }

  private queueOf({ model }: LiveJob): Queue<JobData, Outcome> {
    return this.queues.get(model.id)!.queue;
  }

  /** Stops it where it runs; takes it back where it waits. */
  private async cancel(job: LiveJob): Promise<void> {
    this.options.connection.notify({ type: "cancel", id: job.id });
    const found = await this.queueOf(job).getJob(job.id);
    const isActive = found !== undefined && (await found.isActive());
    if (isActive || (await found?.isCompleted())) return;
    const isOut = found === undefined || (await found.remove().then(isTrue, isFalse));
    if (isOut) this.end(job, () => endWaiting(this.options.reports, job));
  }

  private begin(job: LiveJob): void {
    if (job.stored.state !== "running") this.options.reports.begun(job);
  }

  private wait(job: LiveJob): void {
    const { state, attempts } = job.stored;
    if (state === "running") this.options.reports.returned(job, attempts);
  }

  private async report(job: LiveJob, data: unknown): Promise<void> {
    const report = reportOf(data);
    if (report === null) throw new Error("A worker's report is none of this version.");
    this.begin(job);
    if (report.type === "progress") job.follow(report);
    if (report.type === "image") await this.receive(job, report.image);
    else if (report.type !== "preview") this.options.reports.told(job, report);
    else {
      const bytes = Uint8Array.fromBase64(report.data);
      this.options.reports.told(job, { ...report, data: bytes });
    }
  }

  /** Notes an image once its file is here. */
  private async receive(job: LiveJob, image: JobImage): Promise<void> {
    if (job.stored.images.some(({ index }) => index === image.index)) return;
    const { outputs, reports } = this.options;
    const { store } = this;
    if (!isNameOf(image, job.id)) {
      throw new BasedXLError("io", "A worker names an image as no image of its job is named.");
    }
    if (store !== null && outputs.pathOf(image.file) === null) {
      await outputs.keep(image.file, await store.read(image.file));
    }
    for (let tries = 0; outputs.pathOf(image.file) === null; tries++) {
      if (tries === fileTries) {
        const message = "A worker's image is not in --outputs: both need one folder, or --store.";
        throw new BasedXLError("io", message);
      }
      // A folder of another machine may show it later.
      await Bun.sleep(fileMs);
    }
    reports.written(job, image);
  }

  private async take(job: LiveJob, data: unknown): Promise<void> {
    const { reports } = this.options;
    const outcome = outcomeOf(data) ?? unknownOutcome;
    this.begin(job);
    let error = outcome.error ?? undefined;
    try {
      for (const image of outcome.images) await this.receive(job, image);
    } catch (reason) {
      if (!(reason instanceof BasedXLError)) throw reason;
      error = { code: reason.code, message: reason.message };
    }
    for (const message of outcome.warnings) reports.told(job, { type: "warning", message });
    // An earlier server may have cancelled it.
    if (outcome.state === "cancelled") job.cancelledBy ??= "client";
    this.end(job, () => endWaiting(reports, job, error));
  }

  private fail(job: LiveJob): void {
    const message = `Its workers ended ${job.stored.attempts} times: it is not tried again.`;
    const error = { code: "interrupted", message };
    this.end(job, () => endWaiting(this.options.reports, job, error));
  }

  /** The store has it first, then Redis forgets it. */
  private end(job: LiveJob, note: () => void): void {
    this.given.delete(job.id);
    note();
    this.queueOf(job)
      .remove(job.id)
      .catch(() => {});
    this.schedule();
  }

  /** Looks at who is there, and at what has become of the jobs, whatever was told of them. */
  private look(): Promise<void> {
    this.looking ??= this.lookOnce()
      .catch(() => {})
      .finally(() => {
        this.looking = null;
      });
    return this.looking;
  }

  private async lookOnce(): Promise<void> {
    const { connection } = this.options;
    if (!connection.isUp || this.isStopping) return;
    await this.takeOver();
    this.workers = await connection.announcements();
    for (const id of this.given.keys()) this.inTurn(id, (given) => this.compare(given));
    this.schedule();
  }

  /** Jobs that an earlier server gave to the workers. */
  private async takeOver(): Promise<void> {
    const { queue } = this.options;
    const waiting = queue.inOrder();
    const { known } = this;
    this.known = new Set(waiting.map(({ id }) => id));
    for (const job of waiting) {
      if (known.has(job.id)) continue;
      if ((await this.queueOf(job).getJob(job.id)) === undefined) continue;
      if (queue.remove(job.id) !== null) this.give(job);
    }
  }

  private async compare(given: Given): Promise<void> {
    const { job } = given;
    if (job.cancelledBy !== null) await this.cancel(job);
    if (!this.given.has(job.id)) return;
    const found = await this.queueOf(job).getJob(job.id);
    if (found === undefined) {
      this.wait(job);
      return await this.add(job);
    }
    const state = await found.getState();
    if (state === "active") this.begin(job);
    else if (state === "waiting" || state === "prioritized") this.wait(job);
    // What is told of it comes first, in its order.
    else if (!given.wasEnded) given.wasEnded = true;
    else if (state === "failed") this.fail(job);
    else if (state === "completed") await this.take(job, found.returnvalue);
  }
}

// --- internal ---

const lookMs = 1000;
const closeMsMax = 1000;
/** Events of a queue that Redis keeps, previews among them. */
const eventsMax = 500;
/** Seconds that Redis keeps jobs which no server asks for. */
const keptAfterEnd = { age: 86_400 };
const fileTries = 20;
const fileMs = 100;

function placesOf(workers: readonly Announcement[]): number {
  return workers.reduce((sum, { places }) => sum + places, 0);
}

/** Stands for an outcome that this version cannot read. */
const unknownOutcome: Outcome = {
  ...{ state: "failed", images: [], warnings: [] },
  error: { code: "internal", message: "What its worker says of the job is none of this version." },
};

const isTrue = () => true;
const isFalse = () => false;
