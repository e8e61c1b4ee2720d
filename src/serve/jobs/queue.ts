/**
 * The jobs that wait: a bounded queue. Higher priorities go first; among equals it is the turn of
 * the client that was served longest ago, and of its oldest job, so that whoever sends a hundred
 * jobs does not keep out whoever sends one.
 */

/** The part of a job that the queue reads. */
export interface Waiting {
  id: string;
  client: string;
  priority: number;
}

export class FairQueue<Job extends Waiting> {
  private jobs: Job[] = [];
  /** When each client was served last, counted in turns. */
  private served = new Map<string, number>();
  private turn = 0;
  private order: readonly Job[] | null = null;

  constructor(readonly max: number) {}

  get length(): number {
    return this.jobs.length;
  }

  get isFull(): boolean {
    return this.jobs.length >= this.max;
  }

  /** Also beyond `max`: what was taken before a restart is not refused after it. */
  add(job: Job): void {
    this.jobs.push(job);
    this.order = null;
  }

  /** Takes out the next one that `fits` accepts; null where none does. */
  take(fits: (job: Job) => boolean = () => true): Job | null {
    const job = next(this.jobs.filter(fits), this.served);
    if (job === null) return null;
    this.remove(job.id);
    this.served.set(job.client, ++this.turn);
    this.forget();
    return job;
  }

  /** Takes out up to `count` others that `fits` accepts, in their order. */
  takeAlike(count: number, fits: (job: Job) => boolean): Job[] {
    const taken = this.inOrder().filter(fits).slice(0, count);
    for (const { id } of taken) this.remove(id);
    return taken;
  }

  remove(id: string): Job | null {
    const place = this.jobs.findIndex((job) => job.id === id);
    const [job = null] = place < 0 ? [] : this.jobs.splice(place, 1);
    if (job !== null) this.order = null;
    return job;
  }

  /** In the order in which they will be taken, if no others come. */
  inOrder(): readonly Job[] {
    this.order ??= orderOf(this.jobs, this.served, this.turn);
    return this.order;
  }

  // --- internal ---

  /** Clients without jobs are forgotten once there are many. */
  private forget(): void {
    if (this.served.size <= clientsMax) return;
    const waiting = new Set(this.jobs.map(({ client }) => client));
    for (const client of this.served.keys()) {
      if (!waiting.has(client)) this.served.delete(client);
    }
  }
}

// --- internal ---

const clientsMax = 10_000;

/**
 * The order of `take`, without a search for each job: whoever is served goes to the end of the
 * line, so that the clients of one priority take turns as they stood before the first of them.
 */
function orderOf<Job extends Waiting>(
  jobs: readonly Job[],
  servedBefore: ReadonlyMap<string, number>,
  lastTurn: number,
): Job[] {
  const served = new Map(servedBefore);
  let turn = lastTurn;
  const order: Job[] = [];
  const levels = Map.groupBy(jobs, ({ priority }) => priority);
  for (const [, level] of [...levels].sort(([a], [b]) => b - a)) {
    const turnOf = ([client]: [string, Job[]]) => served.get(client) ?? 0;
    let lines = [...Map.groupBy(level, ({ client }) => client)];
    lines.sort((a, b) => turnOf(a) - turnOf(b));
    for (let round = 0; lines.length > 0; round++) {
      for (const [client, line] of lines) {
        order.push(line[round]!);
        served.set(client, ++turn);
      }
      lines = lines.filter(([, line]) => line.length > round + 1);
    }
  }
  return order;
}

function next<Job extends Waiting>(
  jobs: readonly Job[],
  served: ReadonlyMap<string, number>,
): Job | null {
  let best: Job | null = null;
  const turnOf = ({ client }: Job) => served.get(client) ?? 0;
  for (const job of jobs) {
    const isBetter =
      best === null ||
      job.priority > best.priority ||
      (job.priority === best.priority && turnOf(job) < turnOf(best));
    if (isBetter) best = job;
  }
  return best;
}
