/**
 * `basedxl worker`: runs jobs of servers until Ctrl-C or SIGTERM; `serve/worker.ts` is the worker.
 */
import { defineCommand } from "citty";
import { badOption } from "../errors.ts";
import { startWorker } from "../serve/worker.ts";
import { runService } from "./service.ts";
import { workerFlags } from "./worker-flags.ts";

/** Resolves to the exit code; errors that are not a stop by signal are thrown on. */
export const workerCommand = defineCommand({
  meta: { name: "worker", description: "Generate images for servers on other machines" },
  args: workerFlags,
  run: ({ args }) =>
    runService(args, async ({ config, ...options }) => {
      const { queue } = config;
      if (queue === undefined) {
        throw badOption("A worker needs --queue, such as redis://queue.example.org:6379.");
      }
      const worker = await startWorker({ ...options, config: { ...config, queue } });
      options.log.info("working", { outputs: config.store ?? config.outputs });
      return worker;
    }),
});
