/**
 * `basedxl serve`: a server until Ctrl-C or SIGTERM; `serve/server.ts` is the server.
 */
import { defineCommand } from "citty";
import { startServer } from "../serve/server.ts";
import { serveFlags } from "./serve-flags.ts";
import { runService } from "./service.ts";

/** Resolves to the exit code; errors that are not a stop by signal are thrown on. */
export const serveCommand = defineCommand({
  meta: { name: "serve", description: "Generate images for others, over HTTP" },
  args: serveFlags,
  run: ({ args }) =>
    runService(args, async (options) => {
      const server = await startServer(options);
      options.log.info("listening", { url: server.url, outputs: options.config.outputs });
      return server;
    }),
});
