/**
 * What becomes of a job while it runs: whoever runs it reports, and the server's records take it
 * to the store, the log of events and the metrics. A worker on another machine reports the same to
 * its server (`remote/`), which takes it here.
 */
import type { ServeLog } from "../log.ts";
import type { Metrics } from "../metrics.ts";
import type { SpeedMeter } from "../share.ts";
import type { EventLog } from "./events.ts";
import type { LiveJob } from "./live.ts";
import type { JobStore } from "./store.ts";
import type { JobError, JobHappening, JobImage, JobState } from "./types.ts";

/** Takes what happens to jobs that run. */
export interface JobReports {
  begun(job: LiveJob): void;
  told(job: LiveJob, happening: JobHappening): void;
  /** An image is a file. */
  written(job: LiveJob, image: JobImage): void;
  /** It waits again, after so many attempts. */
  returned(job: LiveJob, attempts: number): void;
  ended(job: LiveJob, state: JobState, why: { by?: string } & Partial<JobError>): void;
}

/** Runs the jobs of the queue, here or elsewhere. */
export interface JobRunner {
  /** Jobs that run. */
  readonly jobs: LiveJob[];
  /** Whether what runs ends with this process. */
  readonly isLocal: boolean;
  /** Starts what can be started. */
  schedule(): void;
  /** Jobs that can run at the same time. */
  readonly places: number;
  /** Resolves when the jobs can be run by the next server. */
  stop(): Promise<void>;
}

interface RecordsOptions {
  store: JobStore;
  events: EventLog;
  metrics: Metrics;
  log: ServeLog;
  speeds: SpeedMeter;
  /** Called when a job has ended, after its last event. */
  onEnd: (job: LiveJob) => void;
  /** Called when a job no longer waits because it runs, or ran and waits again. */
  onQueueChange: () => void;
}

export class JobRecords implements JobReports {
  constructor(private readonly options: RecordsOptions) {}

  begun(job: LiveJob): void {
    const { stored } = job;
    const { store, metrics, onQueueChange } = this.options;
    job.begin();
    metrics.waitSeconds.observe({ model: job.model.id }, (Date.now() - stored.createdAt) / 1000);
    store.update(stored);
    onQueueChange();
  }

  told(job: LiveJob, happening: JobHappening): void {
    const { events, metrics } = this.options;
    if (happening.type === "warning" && !job.warn(happening.message)) return;
    events.add(job.id, happening);
    const seconds = happening.type === "progress" ? job.lastStepSeconds() : null;
    if (seconds !== null) metrics.stepSeconds.observe({ model: job.model.id }, seconds);
  }

  written(job: LiveJob, image: JobImage): void {
    const { store, events, metrics } = this.options;
    const { stored, model } = job;
    if (!store.addImage(job.id, image)) return;
    stored.images.push(image);
    stored.images.sort((a, b) => a.index - b.index);
    const { bytes: _, type: __, ...told } = image;
    events.add(job.id, { type: "image", ...told });
    metrics.images.inc({ model: model.id });
    metrics.imageSeconds.observe(
      { model: model.id },
      (Date.now() - (stored.startedAt ?? Date.now())) / 1000,
    );
  }

  returned(job: LiveJob, attempts: number): void {
    job.requeue(attempts);
    this.options.store.update(job.stored);
    this.options.onQueueChange();
  }

  ended(job: LiveJob, state: JobState, why: { by?: string } & Partial<JobError>): void {
    const { store, events, metrics, log, speeds, onEnd } = this.options;
    const { stored } = job;
    const endedAt = job.end(state, why);
    store.update(stored);
    events.add(job.id, { type: state, ...why } as JobHappening);
    metrics.jobs.inc({ state });
    const seconds = (endedAt - (stored.startedAt ?? endedAt)) / 1000;
    if (state === "done") speeds.noteJob(seconds);
    log.info(`job_${state}`, {
      ...{ id: job.id, client: job.client, dialect: stored.spec.dialect, model: job.model.id },
      ...{ seconds, images: stored.images.length, ...why },
    });
    onEnd(job);
  }
}

/** Ends a job that does not run (any more): cancelled, failed, or done. */
export function endWaiting(reports: JobReports, job: LiveJob, error?: JobError): void {
  if (job.cancelledBy !== null) reports.ended(job, "cancelled", { by: job.cancelledBy });
  else if (error !== undefined) reports.ended(job, "failed", error);
  else reports.ended(job, "done", {});
}
