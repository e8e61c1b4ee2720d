/**
 * Readers that wait for the next event of a log.
 */

export class Wakes {
  private readonly waiting = new Set<() => void>();

  /** Ends all waits. */
  wake(): void {
    for (const resolve of [...this.waiting]) resolve();
  }

  /** Resolves at the next `wake`, or when nobody reads any more; leaves nothing at `signal`. */
  async next(signal: AbortSignal | undefined): Promise<void> {
    if (signal?.aborted) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const stop = () => resolve();
    this.waiting.add(stop);
    signal?.addEventListener("abort", stop);
    await promise;
    signal?.removeEventListener("abort", stop);
    this.waiting.delete(stop);
  }
}
