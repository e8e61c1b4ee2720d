/**
 * Ids that clients choose for their jobs, as ComfyUI's prompt_id and A1111's force_task_id. They
 * are kept with the jobs, and so hold after a restart.
 */
import type { JobService, JobSpec, JobView } from "../jobs/types.ts";

export class ClientIds {
  private known: Map<string, string> | null = null;

  constructor(
    private readonly jobs: JobService,
    private readonly dialect: JobSpec["dialect"],
    /** The id in what is kept with a job; undefined where the client chose none. */
    private readonly idOf: (dialectData: unknown) => string | undefined,
  ) {}

  /** The newest job of this id: the client's, or the server's own. */
  job(id: string): JobView | null {
    const job = this.jobs.get(this.map().get(id) ?? id);
    return job?.spec.dialect === this.dialect ? job : null;
  }

  add(job: JobView): void {
    const id = this.idOf(job.spec.dialectData);
    if (id !== undefined) this.map().set(id, job.id);
  }

  // --- internal ---

  /** Those of before the start are read once, when an id is first asked for. */
  private map(): Map<string, string> {
    if (this.known !== null) return this.known;
    this.known = new Map();
    const jobs = this.jobs.list({ limit: jobsMax }).reverse();
    for (const job of jobs) if (job.spec.dialect === this.dialect) this.add(job);
    return this.known;
  }
}

// --- internal ---

const jobsMax = 10_000;
