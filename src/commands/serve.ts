/**
 * `basedxl serve`: a server until Ctrl-C or SIGTERM.
 */
import { defineCommand } from "citty";
import { cancelled } from "../errors.ts";
import { startServer } from "../serve/server.ts";
import { createOutput } from "../terminal/output.ts";
import { serveFlags } from "./serve-flags.ts";
import { runStoppable } from "./stoppable.ts";

export const serveCommand = defineCommand({
  meta: { name: "serve", description: "Generate images for others, over HTTP" },
  args: serveFlags,
  async run({ args }) {
    const output = createOutput({ quiet: false, json: false, verbose: false });
    return await runStoppable(output, async (signal) => {
      const { host = "127.0.0.1", port = "7860", model, outputs = "outputs" } = args;
      const server = await startServer({ host, port: Number(port), model, outputs });
      output.log.info(`Listening on ${server.url}.`);
      const { promise: stopped, resolve: stop } = Promise.withResolvers<void>();
      signal.addEventListener("abort", () => stop());
      await stopped;
      await server.stop();
      throw cancelled("The server was stopped.");
    });
  },
});
