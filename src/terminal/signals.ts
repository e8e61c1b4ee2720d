/**
 * Ctrl-C and SIGTERM as an AbortSignal. Under `bun run` one Ctrl-C arrives twice, from the terminal
 * and from the parent: a signal within a second of the first is a duplicate. A later one ends the
 * process at once, in case stopping hangs.
 */

type StopSignal = "SIGINT" | "SIGTERM";

/** Exit codes by the shells' convention: 128 + the signal's number. */
export const exitCodeOfSignal: Record<StopSignal, number> = { SIGINT: 130, SIGTERM: 143 };

const sameSignalMs = 1000;

interface StopWatch {
  readonly signal: AbortSignal;
  /** The signal that was received; null before one. */
  stoppedBy(): StopSignal | null;
  /** Restores the default handling of the signals. */
  release(): void;
}

/** Listens until `release`; `onStop` is called once, with the first signal. */
export function watchStopSignals(onStop: (signal: StopSignal) => void): StopWatch {
  const controller = new AbortController();
  let stoppedBy: StopSignal | null = null;
  let firstMs = 0;

  const listen = (signal: StopSignal) => {
    if (stoppedBy === null) {
      stoppedBy = signal;
      firstMs = performance.now();
      onStop(signal);
      controller.abort();
    } else if (performance.now() - firstMs > sameSignalMs) {
      release();
      process.kill(process.pid, signal);
    }
  };
  const release = () => {
    process.off("SIGINT", listen);
    process.off("SIGTERM", listen);
  };
  process.on("SIGINT", listen);
  process.on("SIGTERM", listen);
  return { signal: controller.signal, stoppedBy: () => stoppedBy, release };
}
