/**
 * Runs the jobs of the queue: as many at a time as the share of the ranks has places, those that
 * are alike together where the server is set so. The share changes when nothing runs.
 */
import { BasedXLError } from "../../errors.ts";
import { encodeFile } from "../../image.ts";
import type { PipelineEvent, PlannedRequest } from "../../pipeline.ts";
import type { Catalog } from "../catalog.ts";
import type { Inputs } from "../inputs.ts";
import type { ServeLog } from "../log.ts";
import type { Lease, PipelinePool } from "../pool.ts";
import type { ServeConfig } from "../settings.ts";
import { chooseShare, type Share, type SpeedMeter } from "../share.ts";
import { collectGarbage } from "./garbage.ts";
import { batchKeyOf, type JobPart, partOf, requestOf } from "./generation.ts";
import { type ImageDependencies, ImageFiles } from "./images.ts";
import type { LiveJob } from "./live.ts";
import type { FairQueue } from "./queue.ts";
import { endWaiting, type JobRunner } from "./records.ts";
import type { JobHappening } from "./types.ts";

interface RunnerOptions extends ImageDependencies {
  queue: FairQueue<LiveJob>;
  pool: PipelinePool;
  catalog: Catalog;
  inputs: Inputs;
  log: ServeLog;
  shares: readonly Share[];
  config: ServeConfig;
  speeds: SpeedMeter;
}

/** One request to a pipeline. */
interface Run {
  jobs: LiveJob[];
  slot: number;
  /** False once its last image is only being written. */
  isComputing: boolean;
  /** Stops it. */
  controller: AbortController;
  ended: Promise<void>;
}

export class Runner implements JobRunner {
  readonly isLocal = true;
  private readonly runs = new Set<Run>();
  private share: Share;
  private isStopping = false;

  constructor(private readonly options: RunnerOptions) {
    this.share = options.shares[0]!;
  }

  get jobs(): LiveJob[] {
    return [...this.runs].flatMap(({ jobs }) => jobs);
  }

  schedule(): void {
    const { queue, config } = this.options;
    while (queue.length > 0 && !this.isStopping) {
      const wanted = this.wantedShare();
      const computing = this.computing();
      if (computing.length > 0 && wanted !== this.share) return;
      this.share = wanted;
      const taken = new Set(computing.map(({ slot }) => slot));
      const slot = Array.from({ length: wanted.images }, (_, i) => i).find((i) => !taken.has(i));
      if (slot === undefined) return;
      const first = queue.take();
      if (first === null) return;
      const key = config.batchJobs > 1 ? batchKeyOf(first) : null;
      const others =
        key === null ? [] : queue.takeAlike(config.batchJobs - 1, (job) => batchKeyOf(job) === key);
      this.start([first, ...others], slot);
    }
  }

  get places(): number {
    return this.share.images;
  }

  /** Stops what runs, which then waits again; resolves when it has stopped. */
  async stop(): Promise<void> {
    this.isStopping = true;
    for (const { controller } of this.runs) controller.abort();
    await Promise.all([...this.runs].map(({ ended }) => ended));
  }

  // --- internal ---

  private computing(): Run[] {
    return [...this.runs].filter(({ isComputing }) => isComputing);
  }

  private wantedShare(): Share {
    const { shares, queue, pool, speeds } = this.options;
    if (shares.length === 1) return shares[0]!;
    const next = queue.inOrder()[0]!;
    return chooseShare(shares, {
      jobCount: queue.length + this.computing().length,
      speedup: (ranks) => speeds.speedup(ranks),
      changeCost: (share) => (pool.has(next.model, share) ? 0 : speeds.loadCost()),
    });
  }

  private start(jobs: LiveJob[], slot: number): void {
    const controller = new AbortController();
    const { promise: ended, resolve: end } = Promise.withResolvers<void>();
    const run: Run = { jobs, slot, isComputing: true, controller, ended };
    this.runs.add(run);
    for (const job of jobs) {
      job.onCancel = () => {
        // What is only being written is done before anybody could see it stop.
        const isStopped = jobs.every(({ cancelledBy }) => cancelledBy !== null);
        if (isStopped && run.isComputing) controller.abort();
      };
      this.options.reports.begun(job);
    }
    void this.run(run).finally(() => {
      collectGarbage();
      this.runs.delete(run);
      end();
      this.schedule();
    });
  }

  /** Never rejects: what goes wrong ends the jobs. */
  private async run(run: Run): Promise<void> {
    const { signal } = run.controller;
    let lease: Lease | null = null;
    try {
      lease = await this.acquire(run);
      await using files = await this.generate(run, lease, signal);
      // The next job computes while the last image is written, unless writing falls behind.
      if (this.runs.size - this.computing().length < writingMax) this.release(run, lease);
      await files?.settled();
      for (const job of run.jobs) endWaiting(this.options.reports, job);
    } catch (error) {
      await this.fail(run, lease, error);
    } finally {
      if (run.isComputing) lease?.release();
    }
  }

  private release(run: Run, lease: Lease): void {
    run.isComputing = false;
    lease.release();
    this.schedule();
  }

  private async acquire({ jobs, slot, controller }: Run): Promise<Lease> {
    const { pool, speeds } = this.options;
    const { share } = this;
    const { model } = jobs[0]!;
    if (!pool.has(model, share)) {
      for (const job of jobs) {
        job.advance({ stage: "load", step: 0, steps: 0 }, 0);
        this.tell(job, { type: "progress", ...job.progress! });
      }
    }
    const startMs = performance.now();
    const lease = await pool.acquire({ model, share, slot, signal: controller.signal });
    speeds.noteLoad((performance.now() - startMs) / 1000);
    return lease;
  }

  /** Resolves to the files that are being written; null where there was nothing to generate. */
  private async generate(
    { jobs }: Run,
    lease: Lease,
    signal: AbortSignal,
  ): Promise<ImageFiles | null> {
    const { config } = this.options;
    const parts = jobs.map(partOf).filter(({ seeds }) => seeds.length > 0);
    if (parts.length === 0) return null;
    const { pipeline, prepared } = lease;
    const { catalog, inputs } = this.options;
    const { model, stored } = parts[0]!.job;
    const from = stored.spec.inputs && inputs.requestOf(stored.spec.inputs);
    const request = { ...requestOf(parts, config.batchJobs), ...from };
    const read = await catalog.images(model, request);
    const plan = catalog.plan(model, request, { rankCount: prepared.rankCount, read });
    const files = new ImageFiles(this.options, prepared, plan, signal);
    const told = new Told(parts, (job, happening) => this.tell(job, happening));
    const startMs = performance.now();
    try {
      await pipeline.generate(plan, {
        signal,
        keepImages: false,
        previewSteps: stored.spec.previewSteps ?? 0,
        onEvent: async (event) => {
          if (event.type !== "image") return told.take(event);
          const { job, index } = told.placeOf(event.index);
          // The others of a batch go on when a job is cancelled.
          if (job.cancelledBy === null) await files.take(job, index, event);
        },
      });
    } catch (error) {
      await files[Symbol.asyncDispose]();
      throw error;
    }
    const work = workOf(plan) + (plan.hires?.denoises ? workOf(plan.hires.plan) : 0);
    this.options.speeds.note(prepared.rankCount, work, (performance.now() - startMs) / 1000);
    return files;
  }

  private tell(job: LiveJob, happening: JobHappening): void {
    this.options.reports.told(job, happening);
  }

  private async fail(run: Run, lease: Lease | null, error: unknown): Promise<void> {
    const { log, pool, config, reports } = this.options;
    const known = error instanceof BasedXLError ? error : null;
    if (known?.sessionLost) await lease?.discard();
    if (known === null) log.error("job_bug", { message: String((error as Error)?.stack ?? error) });
    const isStopped = known?.code === "cancelled";
    // Memory that idle models hold may suffice.
    const mayFit = known?.code === "no-memory" && (await pool.freeOne());
    for (const job of run.jobs) {
      const { attempts } = job.stored;
      if (job.cancelledBy !== null) endWaiting(reports, job);
      else if (isStopped) this.requeue(job, attempts - 1);
      else if ((known?.sessionLost || mayFit) && attempts < config.maxAttempts) {
        log.warn("job_retry", { id: job.id, code: known?.code, message: known?.message });
        this.requeue(job, attempts);
      } else {
        const code = known?.code ?? "internal";
        const message = known?.message ?? "Internal error: the server's log says more.";
        endWaiting(reports, job, { code, message });
      }
    }
  }

  private requeue(job: LiveJob, attempts: number): void {
    job.onCancel = () => {};
    this.options.queue.add(job);
    this.options.reports.returned(job, attempts);
  }
}

/** Runs whose last images are being written while others compute. */
const writingMax = 2;

/** A request's events as those of its jobs. */
class Told {
  /** Images whose preview is being encoded. */
  private readonly encoding = new Set<number>();

  constructor(
    private readonly parts: readonly JobPart[],
    private readonly tell: (job: LiveJob, happening: JobHappening) => void,
  ) {}

  /** Whose image it is, and which of it. */
  placeOf(index: number): { job: LiveJob; index: number } {
    let first = 0;
    for (const { job, indices } of this.parts) {
      if (index < first + indices.length) return { job, index: indices[index - first]! };
      first += indices.length;
    }
    throw new RangeError(`image ${index} of ${first}`);
  }

  take(event: Exclude<PipelineEvent, { type: "image" }>): void {
    if (event.type === "preview") void this.preview(event);
    else if (event.type === "progress") this.progress(event);
    else {
      for (const { job } of this.parts) {
        if (event.type === "start") this.tell(job, { type: "start", layout: event.layout });
        else this.tell(job, { type: "warning", message: event.message });
      }
    }
  }

  // --- internal ---

  private progress(event: PipelineEvent & { type: "progress" }): void {
    const { stage, stepIndex: step, stepCount: steps, images, pass } = event;
    const { first, last, count } = images;
    const batchesLeft = Math.ceil((count - last) / (last - first + 1));
    for (const { job } of this.parts) {
      if (!job.advance({ stage, step, steps, pass }, batchesLeft)) continue;
      this.tell(job, { type: "progress", ...job.progress! });
    }
  }

  /** One at a time of each image: where encoding is slower than steps, others are left out. */
  private async preview(event: PipelineEvent & { type: "preview" }): Promise<void> {
    if (this.encoding.has(event.index)) return;
    this.encoding.add(event.index);
    try {
      const { job, index } = this.placeOf(event.index);
      const { bytes: data } = await encodeFile("jpeg", event, { quality: 80 });
      if (job.stored.state !== "running") return;
      const step = event.stepIndex;
      this.tell(job, { type: "preview", index, step, type_: "image/jpeg", data });
    } catch {
      // A preview that cannot be encoded is none.
    } finally {
      this.encoding.delete(event.index);
    }
  }
}

/** Of one pass, in steps of a million pixels. */
function workOf({ settings }: PlannedRequest): number {
  const { width, height, stepCount, imageCount } = settings;
  return (width * height * stepCount * imageCount) / 1e6;
}
