/**
 * What a worker's runner reports, on its way to the server.
 */
import type { LiveJob } from "../jobs/live.ts";
import type { JobReports } from "../jobs/records.ts";
import type { JobError, JobHappening, JobImage, JobState } from "../jobs/types.ts";
import type { Outcome } from "./messages.ts";
import type { Outbox } from "./outbox.ts";

interface Open {
  outbox: Outbox;
  settle: (outcome: Outcome | null) => Promise<void>;
}

export class RemoteReports implements JobReports {
  private readonly open_ = new Map<string, Open>();
  private isStopping = false;

  /** `settle` is called with what became of the job; with null where it was stopped. */
  open(job: LiveJob, outbox: Outbox, settle: Open["settle"]): void {
    this.open_.set(job.id, { outbox, settle });
  }

  /** Jobs that are stopped from now on go back. */
  stop(): void {
    this.isStopping = true;
  }

  begun(job: LiveJob): void {
    job.begin();
  }

  told(job: LiveJob, happening: JobHappening): void {
    const outbox = this.open_.get(job.id)?.outbox;
    if (happening.type === "warning" && !job.warn(happening.message)) return;
    if (happening.type === "preview") {
      outbox?.add({ ...happening, data: happening.data.toBase64() });
    } else if (happening.type !== "image") outbox?.add(happening);
  }

  written(job: LiveJob, image: JobImage): void {
    job.stored.images.push(image);
    this.open_.get(job.id)?.outbox.add({ type: "image", image });
  }

  /** The runner has put it into its own queue, and tries it again unless the worker stops. */
  returned(job: LiveJob, attempts: number): void {
    job.requeue(attempts);
    if (this.isStopping) void this.settle(job, null);
  }

  ended(job: LiveJob, state: JobState, why: Partial<JobError>): void {
    job.end(state, why);
    const { images, warnings, error } = job.stored;
    void this.settle(job, { state: state as Outcome["state"], images, warnings, error });
  }

  // --- internal ---

  private async settle(job: LiveJob, outcome: Outcome | null): Promise<void> {
    const open = this.open_.get(job.id);
    this.open_.delete(job.id);
    await open?.outbox.drained();
    await open?.settle(outcome);
  }
}
