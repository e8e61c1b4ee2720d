/**
 * `basedxl worker`: takes jobs of servers from the queue in Redis and runs them on this machine,
 * as many at a time as `--share` has places.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HashCache } from "../library/hashes.ts";
import type { PipelineDependencies, PrepareOptions } from "../pipeline.ts";
import { Catalog } from "./catalog.ts";
import { Inputs } from "./inputs.ts";
import type { LiveJob } from "./jobs/live.ts";
import { FairQueue } from "./jobs/queue.ts";
import { Runner } from "./jobs/runner.ts";
import type { ServeLog } from "./log.ts";
import { Outputs } from "./outputs.ts";
import { PipelinePool } from "./pool.ts";
import { QueueConnection } from "./remote/connection.ts";
import { ObjectStore } from "./remote/object-store.ts";
import { Places } from "./remote/places.ts";
import { RemoteReports } from "./remote/reports.ts";
import type { ServeConfig } from "./settings.ts";
import { parseShare, SpeedMeter } from "./share.ts";

interface WorkerOptions extends Pick<PrepareOptions, "onLine" | "onDownload" | "signal"> {
  config: ServeConfig & { queue: string };
  log: ServeLog;
  /** How pipelines are opened; tests bring others. */
  dependencies?: PipelineDependencies;
}

interface RunningWorker {
  /** Gives back within a step what runs, and frees everything. */
  stop(): Promise<void>;
}

/** Resolves when the first model is loaded and jobs are taken. Rejects with `BasedXLError`. */
export async function startWorker(options: WorkerOptions): Promise<RunningWorker> {
  const { config, log, dependencies, signal } = options;
  // Where a later part fails, what is open must not keep the process.
  await using opened = new AsyncDisposableStack();
  const catalog = await Catalog.open(config, options, dependencies);
  // Before the model loads, which takes longer.
  const connection = opened.use(await QueueConnection.open(config.queue, log));
  const images =
    config.store === undefined
      ? Outputs.open(config.outputs, { isShared: true })
      : ObjectStore.open(config.store);
  const inputsFolder = mkdtempSync(join(tmpdir(), "basedxl-worker-"));
  opened.defer(() => rmSync(inputsFolder, { recursive: true, force: true }));
  const inputs = new Inputs(inputsFolder);
  const pool = new PipelinePool({
    ...{ maxModels: config.maxModels, dependencies },
    onLoad: (model, seconds) => log.info("model_loaded", { model, seconds }),
  });
  opened.defer(() => pool.close());
  // By itself a worker has all its ranks on one image: others have workers of their own.
  const share = parseShare(config.share, config.rankCount)[0]!;
  const [model] = catalog.models;
  const loading = signal ?? new AbortController().signal;
  (await pool.acquire({ model: model!, share, slot: 0, signal: loading })).release();
  const queue = new FairQueue<LiveJob>(share.images);
  const reports = new RemoteReports();
  const runner = new Runner({
    ...{ queue, pool, catalog, log, config, reports, inputs, outputs: images, shares: [share] },
    ...{ speeds: new SpeedMeter(), hashCache: new HashCache() },
  });
  const places = new Places({
    ...{ connection, catalog, images, inputs, reports, log, config, places: share.images },
    loadedModels: () => pool.models(),
    run: (job) => {
      queue.add(job);
      runner.schedule();
    },
  });
  opened.defer(() => places.stop());
  await places.start();
  const rest = opened.move();
  return {
    async stop() {
      // Or it would take again what it gives back.
      places.takeNoMore();
      reports.stop();
      await runner.stop();
      await rest.disposeAsync();
    },
  };
}
