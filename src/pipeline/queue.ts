/**
 * A first-in, first-out queue that runs one job at a time. A cancelled job that still waits leaves
 * the queue at once.
 */
import { cancelled, stopIfAborted } from "../errors.ts";

export class JobQueue {
  private isBusy = false;
  private readonly waiting: (() => void)[] = [];

  /**
   * Runs `work` when all earlier calls have ended, and settles as it does. Rejects with "cancelled"
   * where `signal` is aborted while the work waits; it then never runs.
   */
  async run<T>(signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
    await this.turn(signal);
    try {
      stopIfAborted(signal);
      return await work();
    } finally {
      const next = this.waiting.shift();
      if (next) next();
      else this.isBusy = false;
    }
  }

  // --- internal ---

  /** Resolves when it is the caller's turn. */
  private async turn(signal: AbortSignal | undefined): Promise<void> {
    stopIfAborted(signal);
    if (!this.isBusy) {
      this.isBusy = true;
      return;
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.waiting.push(resolve);
    const leave = () => {
      const place = this.waiting.indexOf(resolve);
      if (place < 0) return;
      this.waiting.splice(place, 1);
      reject(cancelled());
    };
    signal?.addEventListener("abort", leave);
    try {
      await promise;
    } finally {
      signal?.removeEventListener("abort", leave);
    }
  }
}
