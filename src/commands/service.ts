/**
 * The command of a service: reads the settings, starts it, and runs it until Ctrl-C or SIGTERM.
 */
import { cancelled } from "../errors.ts";
import type { PrepareOptions } from "../pipeline.ts";
import { readConfig } from "../serve/config.ts";
import { compileLoopsAlone } from "../serve/jit.ts";
import { createLog, type ServeLog } from "../serve/log.ts";
import type { ServeConfig } from "../serve/settings.ts";
import { createOutput } from "../terminal/output.ts";
import { runStoppable } from "./stoppable.ts";

interface ServiceOptions extends Pick<PrepareOptions, "onLine" | "onDownload" | "signal"> {
  config: ServeConfig;
  log: ServeLog;
}

/** Resolves to the exit code; errors that are not a stop by signal are thrown on. */
export async function runService(
  flags: Readonly<Record<string, unknown>>,
  start: (options: ServiceOptions) => Promise<{ stop(): Promise<void> }>,
): Promise<number> {
  compileLoopsAlone();
  const config = readConfig({ flags, env: process.env });
  const output = createOutput({ quiet: true, json: false, verbose: config.verbose });
  const log = createLog({ format: config.logFormat, verbose: config.verbose });
  return await runStoppable(output, async (signal) => {
    const service = await start({
      ...{ config, log, signal },
      onLine: (line) => log.info("setup", { line }),
      onDownload: (state) => {
        if (process.stderr.isTTY) output.progress.download(state);
      },
    });
    const { promise: stopped, resolve: stop } = Promise.withResolvers<void>();
    signal.addEventListener("abort", () => stop());
    if (!signal.aborted) await stopped;
    log.info("stopping", {});
    await service.stop();
    log.info("stopped", {});
    throw cancelled("The service was stopped.");
  });
}
