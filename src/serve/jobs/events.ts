/**
 * The log of what happens to jobs. Readers have a place in the log and no buffer of their own: a
 * slow one costs nothing, and reads on where it stopped. What matters is kept in the store; of
 * progress and previews the newest are in memory alone.
 */
import type { JobStore } from "./store.ts";
import type { JobEvent, JobHappening } from "./types.ts";
import { Wakes } from "./wakes.ts";

export class EventLog {
  private ids: { first: number; end: number };
  /** Of jobs that run or ended a moment ago; every event that is not in the store alone. */
  private readonly recent: JobEvent[] = [];
  private previewBytes = 0;
  private readonly wakes = new Wakes();
  private isClosed = false;

  constructor(private readonly store: JobStore) {
    this.ids = store.reserveEventIds(idsAtOnce);
  }

  add(jobId: string, happening: JobHappening): JobEvent {
    if (this.ids.first === this.ids.end) this.ids = this.store.reserveEventIds(idsAtOnce);
    const event: JobEvent = { id: this.ids.first++, jobId, at: Date.now(), ...happening };
    if (isKept(event)) this.store.addEvent(event);
    this.recent.push(event);
    if (event.type === "preview") this.previewBytes += event.data.length;
    this.shrink(event);
    this.wakes.wake();
    return event;
  }

  /** The newest. */
  get lastId(): number {
    return this.ids.first - 1;
  }

  /** Events that are in memory. */
  get heldCount(): number {
    return this.recent.length;
  }

  /** See `JobService.events`; `isLive` says whether more is to come. */
  async *read(
    jobId: string | "all",
    afterId: number,
    isLive: () => boolean,
    signal?: AbortSignal,
  ): AsyncGenerator<JobEvent> {
    // A larger one is of another log, as of a server that had other outputs.
    let last = Math.min(afterId, this.lastId);
    const wanted = (event: JobEvent) => jobId === "all" || event.jobId === jobId;
    while (!signal?.aborted && !this.isClosed) {
      const next = this.nextAfter(jobId, last, wanted);
      if (next === null) {
        if (!isLive()) return;
        await this.wakes.next(signal);
        continue;
      }
      last = next.id;
      yield next;
      if (jobId !== "all" && isLast(next)) return;
    }
  }

  /** Ends all readers. */
  close(): void {
    this.isClosed = true;
    this.wakes.wake();
  }

  // --- internal ---

  /** From the store, where the recent ones begin later. */
  private nextAfter(
    jobId: string | "all",
    afterId: number,
    wanted: (event: JobEvent) => boolean,
  ): JobEvent | null {
    const found = this.recent[firstAbove(this.recent, afterId, wanted)] ?? null;
    const isCovered = (this.recent[0]?.id ?? Number.POSITIVE_INFINITY) <= afterId + 1;
    if (isCovered) return found;
    const [stored] = this.store.events(jobId, afterId, 1);
    return stored !== undefined && (found === null || stored.id < found.id) ? stored : found;
  }

  /** Drops what a newer event replaces, then the oldest. */
  private shrink(newest: JobEvent): void {
    const { recent } = this;
    const keep = kept[newest.type];
    if (keep !== undefined) this.dropOlder(newest, keep);
    while (recent.length > eventsMax || this.previewBytes > previewBytesMax) {
      const place = this.previewBytes > previewBytesMax ? recent.findIndex(isPreview) : 0;
      this.drop(place);
    }
  }

  private dropOlder({ jobId, type }: JobEvent, keep: number): void {
    let count = 0;
    for (let i = this.recent.length - 1; i >= 0; i--) {
      const event = this.recent[i]!;
      // The events of a job begin with its start.
      if (event.jobId === jobId && event.type === "start") break;
      if (event.jobId !== jobId || event.type !== type) continue;
      count += 1;
      if (count <= keep) continue;
      this.drop(i);
      break;
    }
  }

  private drop(place: number): void {
    const [event] = this.recent.splice(place, 1);
    if (event?.type === "preview") this.previewBytes -= event.data.length;
  }
}

/** Whether nothing happens to the job after it. */
export function isLast({ type }: JobEvent): boolean {
  return type === "done" || type === "failed" || type === "cancelled";
}

// --- internal ---

const idsAtOnce = 1000;
const eventsMax = 1000;
/** So many of a job's newest. */
const kept: Partial<Record<JobEvent["type"], number>> = { queued: 1, progress: 300, preview: 8 };
const previewBytesMax = 2 ** 26;

function isKept({ type }: JobEvent): boolean {
  return type !== "progress" && type !== "preview" && type !== "queued";
}

function isPreview({ type }: JobEvent): boolean {
  return type === "preview";
}

/** The index of the first wanted event above `id`. */
function firstAbove(
  events: readonly JobEvent[],
  id: number,
  wanted: (event: JobEvent) => boolean,
): number {
  let [low, high] = [0, events.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (events[middle]!.id > id) high = middle;
    else low = middle + 1;
  }
  for (let i = low; i < events.length; i++) if (wanted(events[i]!)) return i;
  return -1;
}
