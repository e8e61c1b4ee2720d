/**
 * The worker's side of the queue in Redis: takes a job whenever a place is free, those of a loaded
 * model first, holds it as long as it runs, and says what became of it. A job that is held no more,
 * because another worker has it or it is gone, is stopped.
 */
import { type Job, Worker } from "bullmq";
import type { Catalog } from "../catalog.ts";
import type { ImageStore } from "../image-store.ts";
import { mapFiles } from "../input-files.ts";
import type { Inputs } from "../inputs.ts";
import { unnotedImages } from "../jobs/generation.ts";
import { LiveJob } from "../jobs/live.ts";
import { specOf } from "../jobs/spec-text.ts";
import type { StoredJob } from "../jobs/store.ts";
import type { ServeLog } from "../log.ts";
import type { ServeConfig } from "../settings.ts";
import type { QueueConnection } from "./connection.ts";
import { type JobData, keyPrefix, type Outcome, queueNameOf } from "./messages.ts";
import { Outbox } from "./outbox.ts";
import type { RemoteReports } from "./reports.ts";

interface PlacesOptions {
  connection: QueueConnection;
  catalog: Catalog;
  images: ImageStore;
  reports: RemoteReports;
  inputs: Inputs;
  log: ServeLog;
  config: Pick<ServeConfig, "maxAttempts" | "workerTimeout">;
  places: number;
  loadedModels: () => readonly string[];
  /** Begins to run it. */
  run: (job: LiveJob) => void;
}

/** A job that this worker has. */
interface Held {
  job: Job<JobData, Outcome>;
  token: string;
  worker: Worker<JobData, Outcome>;
  /** null until it runs. */
  live: LiveJob | null;
  isLost: boolean;
}

export class Places {
  private readonly id = crypto.randomUUID();
  private readonly workers = new Map<string, Worker<JobData, Outcome>>();
  private readonly held = new Map<string, Held>();
  private readonly timers: Timer[] = [];
  private wake: () => void = () => {};
  private isStopping = false;
  private taken = 0;

  constructor(private readonly options: PlacesOptions) {
    for (const model of options.catalog.models) {
      this.workers.set(model.id, this.openWorker(queueNameOf(model)));
    }
  }

  /** Announces this worker and begins to take jobs. */
  async start(): Promise<void> {
    const { connection, config } = this.options;
    await connection.listen((notice) => {
      if (notice.type === "added") this.wake();
      if (notice.type === "cancel") this.cancel(notice.id, "client");
    });
    await Promise.all([...this.workers.values()].map((worker) => worker.startStalledCheckTimer()));
    await this.announce();
    connection.notify({ type: "workers" });
    const timeoutMs = config.workerTimeout * 1000;
    this.timers.push(setInterval(() => void this.hold(), timeoutMs / 4));
    this.timers.push(setInterval(() => void this.announce(), announceMs));
    void this.take();
  }

  /** From now on; what runs goes on, and is held. */
  takeNoMore(): void {
    this.isStopping = true;
    this.wake();
  }

  /** What runs must have been stopped or ended. */
  async stop(): Promise<void> {
    this.takeNoMore();
    for (const timer of this.timers) clearInterval(timer);
    const { connection } = this.options;
    const closing = async () => {
      await connection.retract(this.id);
      connection.notify({ type: "workers" });
      await Promise.all([...this.held.values()].map((held) => this.giveBack(held)));
      await Promise.all([...this.workers.values()].map((worker) => worker.close(true)));
    };
    // Where Redis is gone nothing answers: the jobs go to others after a while.
    await Promise.race([closing().catch(() => {}), Bun.sleep(closeMsMax)]);
    await connection[Symbol.asyncDispose]();
  }

  // --- internal ---

  private openWorker(name: string): Worker<JobData, Outcome> {
    const { connection, config, log } = this.options;
    const timeoutMs = config.workerTimeout * 1000;
    const worker = new Worker<JobData, Outcome>(name, null, {
      ...{ connection: connection.redis, prefix: keyPrefix, autorun: false },
      ...{ lockDuration: timeoutMs, stalledInterval: timeoutMs / 2 },
      maxStalledCount: config.maxAttempts - 1,
    });
    worker.on("error", (error) => log.debug("queue_error", { message: error.message }));
    return worker;
  }

  private async announce(): Promise<void> {
    const { connection, places } = this.options;
    const names = [...this.workers].map(([model, { name }]) => [model, name]);
    const announcement = { models: Object.fromEntries(names), places };
    const { workerTimeout } = this.options.config;
    await connection.announce(this.id, announcement, workerTimeout + 5).catch(() => {});
  }

  private async take(): Promise<void> {
    while (!this.isStopping) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.wake = resolve;
      const isTaken = await this.takeNext().catch((error: Error) => {
        this.options.log.debug("queue_error", { message: error.message });
        return false;
      });
      if (!isTaken) await Promise.race([promise, Bun.sleep(idleMs)]);
    }
  }

  private async takeNext(): Promise<boolean> {
    const { places, loadedModels } = this.options;
    if (this.held.size >= places) return false;
    const loaded = new Set(loadedModels());
    const order = [...this.workers].sort(
      ([a], [b]) => Number(loaded.has(b)) - Number(loaded.has(a)),
    );
    for (const [model, worker] of order) {
      const token = `${this.id}:${this.taken++}`;
      const job = await worker.getNextJob(token, { block: false });
      if (job === undefined) continue;
      if (this.held.has(job.id!)) {
        // Redis forgot that it is here, where it is just being stopped.
        await job.moveToWait(token);
        return false;
      }
      const held: Held = { job, token, worker, live: null, isLost: false };
      this.held.set(job.id!, held);
      void this.begin(held, model).catch((error: Error) => this.refuse(held, error));
      return true;
    }
    return false;
  }

  private async begin(held: Held, model: string): Promise<void> {
    const { job } = held;
    const { catalog, images, inputs, reports, log } = this.options;
    if (job.deferredFailure !== undefined) throw new Error(job.deferredFailure);
    const { spec, createdAt, images: noted, inputs: given } = job.data;
    const stored: StoredJob = {
      ...{ id: job.id!, state: "queued", spec: { ...specOf(spec), model }, createdAt, attempts: 0 },
      ...{ startedAt: null, endedAt: null, images: noted, warnings: [], error: null },
    };
    const live = new LiveJob(stored, catalog.model(stored.spec));
    const outbox = new Outbox((report) => job.updateProgress(report));
    for (const image of await unnotedImages(images, stored)) {
      stored.images.push(image);
      outbox.add({ type: "image", image });
    }
    if (given !== null) {
      const files = mapFiles(given, (text) => Uint8Array.fromBase64(text));
      await inputs.keep(files, () => {
        held.live = live;
      });
    }
    log.info("job_taken", { id: live.id, model, stalls: job.stalledCounter });
    if (held.isLost || this.isStopping) return await this.giveBack(held);
    held.live = live;
    reports.open(live, outbox, (outcome) => this.settle(held, outcome));
    this.options.run(live);
  }

  /** Ends what cannot be begun. */
  private async refuse(held: Held, error: Error): Promise<void> {
    this.options.log.warn("job_refused", { id: held.job.id, message: error.message });
    await held.job.moveToFailed(error, held.token, false).catch(() => {});
    this.free(held);
  }

  /** Says what became of a job; null where it waits again. */
  private async settle(held: Held, outcome: Outcome | null): Promise<void> {
    const { job, token, isLost } = held;
    if (outcome === null) await this.giveBack(held);
    else {
      const done = isLost ? null : job.moveToCompleted(outcome, token, false);
      await done?.catch((error: Error) => {
        // Another worker has it, and will find its images.
        this.options.log.warn("job_lost", { id: job.id, message: error.message });
      });
      this.free(held);
    }
    this.options.log.info("job_settled", { id: job.id, state: outcome?.state ?? "returned" });
  }

  private async giveBack(held: Held): Promise<void> {
    if (!held.isLost) await held.job.moveToWait(held.token).catch(() => {});
    held.isLost = true;
    this.free(held);
    this.options.connection.notify({ type: "added" });
  }

  private free({ job }: Held): void {
    this.held.delete(job.id!);
    const specs = [...this.held.values()].map(({ live }) => live?.stored.spec);
    this.options.inputs.keepOnly(specs.filter((spec) => spec !== undefined));
    this.wake();
  }

  private cancel(id: string, by: string): void {
    const live = this.held.get(id)?.live;
    if (!live || live.cancelledBy !== null) return;
    live.cancelledBy = by;
    // It may wait here, where it is tried again.
    live.onCancel();
  }

  /** Says that the jobs are still held, and stops those that are not. */
  private async hold(): Promise<void> {
    const { config, log, connection } = this.options;
    if (!connection.isUp) return;
    for (const worker of this.workers.values()) {
      const held = [...this.held.values()].filter((each) => each.worker === worker);
      if (held.length === 0) continue;
      const ids = held.map(({ job }) => job.id!);
      const tokens = held.map(({ token }) => token);
      const timeoutMs = config.workerTimeout * 1000;
      const lost = await worker.extendJobLocks(ids, tokens, timeoutMs).catch((): string[] => []);
      for (const each of held) {
        if (!lost.includes(each.job.id!) || !this.held.has(each.job.id!)) continue;
        log.warn("job_lost", { id: each.job.id });
        each.isLost = true;
        this.cancel(each.job.id!, "loss");
      }
    }
  }
}

// --- internal ---

const announceMs = 5000;
/** Between two looks at queues that say nothing. */
const idleMs = 1000;
const closeMsMax = 3000;
