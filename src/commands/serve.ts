/**
 * `basedxl serve`: a server until Ctrl-C or SIGTERM. This file reads the settings and says what
 * happens; `serve/server.ts` is the server.
 */
import { defineCommand } from "citty";
import { cancelled } from "../errors.ts";
import { readConfig } from "../serve/config.ts";
import { createLog } from "../serve/log.ts";
import { startServer } from "../serve/server.ts";
import { createOutput } from "../terminal/output.ts";
import { serveFlags } from "./serve-flags.ts";
import { runStoppable } from "./stoppable.ts";

/** Resolves to the exit code; errors that are not a stop by signal are thrown on. */
export const serveCommand = defineCommand({
  meta: { name: "serve", description: "Generate images for others, over HTTP" },
  args: serveFlags,
  async run({ args }) {
    const config = readConfig({ flags: args, env: process.env });
    const output = createOutput({ quiet: true, json: false, verbose: config.verbose });
    const log = createLog({ format: config.logFormat, verbose: config.verbose });
    return await runStoppable(output, async (signal) => {
      const server = await startServer({
        ...{ config, log, signal },
        onLine: (line) => log.info("setup", { line }),
        onDownload: (state) => {
          if (process.stderr.isTTY) output.progress.download(state);
        },
      });
      log.info("listening", { url: server.url, outputs: config.outputs });
      const { promise: stopped, resolve: stop } = Promise.withResolvers<void>();
      signal.addEventListener("abort", () => stop());
      if (!signal.aborted) await stopped;
      log.info("stopping", {});
      await server.stop();
      log.info("stopped", {});
      throw cancelled("The server was stopped.");
    });
  },
});
