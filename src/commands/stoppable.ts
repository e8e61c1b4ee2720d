/**
 * Runs the work of a command so that Ctrl-C and SIGTERM stop it in good order.
 */
import { BasedXLError } from "../errors.ts";
import { type Output, writeJson } from "../terminal/output.ts";
import { exitCodeOfSignal, watchStopSignals } from "../terminal/signals.ts";

/** Resolves to the exit code: 0, or that of the signal that stopped `work`. Rejects with others. */
export async function runStoppable(
  output: Output,
  work: (signal: AbortSignal) => Promise<void>,
): Promise<number> {
  const watch = watchStopSignals(() => {
    output.progress.clear();
    output.log.info("Stopping ...");
  });
  try {
    await work(watch.signal);
    return 0;
  } catch (error) {
    output.progress.clear();
    const stoppedBy = watch.stoppedBy();
    const cancelled = error instanceof BasedXLError && error.code === "cancelled";
    if (stoppedBy === null || !cancelled) throw error;
    const { code, message } = error;
    if (output.verbosity.json) writeJson({ error: { code, message } });
    return exitCodeOfSignal[stoppedBy];
  } finally {
    watch.release();
  }
}
