/**
 * The last preview of each job that runs.
 */
import type { JobService, JobView } from "../../jobs/types.ts";

interface LivePreview {
  /** Rises with each preview of the job. */
  number: number;
  /** JPEG. */
  bytes: Uint8Array;
}

export class LivePreviews {
  private readonly last = new Map<string, LivePreview>();

  constructor(private readonly jobs: JobService) {}

  /** Until the job ends. */
  async follow({ id }: JobView): Promise<void> {
    for await (const event of this.jobs.events(id)) {
      if (event.type !== "preview") continue;
      const number = (this.last.get(id)?.number ?? 0) + 1;
      this.last.set(id, { number, bytes: event.data });
    }
    this.last.delete(id);
  }

  of(id: string): LivePreview | null {
    return this.last.get(id) ?? null;
  }
}
