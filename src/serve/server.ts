/**
 * `basedxl serve`: opens the models, takes up what an earlier server left, listens, and runs jobs
 * until it is told to stop.
 */
import { join } from "node:path";
import { websocket } from "hono/bun";
import { BasedXLError, escaped } from "../errors.ts";
import { HashCache } from "../library/hashes.ts";
import type { Pipeline, PipelineDependencies, PrepareOptions } from "../pipeline.ts";
import { createApp } from "./app.ts";
import { ServerCapabilities } from "./capabilities.ts";
import { Catalog } from "./catalog.ts";
import { FirstModel } from "./first-model.ts";
import { Inputs } from "./inputs.ts";
import { Runner } from "./jobs/runner.ts";
import { QueuedJobs } from "./jobs/service.ts";
import { JobStore } from "./jobs/store.ts";
import type { ServeLog } from "./log.ts";
import { Outputs } from "./outputs.ts";
import { PipelinePool } from "./pool.ts";
import { Readiness } from "./readiness.ts";
import type { ServeConfig } from "./settings.ts";
import { parseShare } from "./share.ts";
import { Upscaling } from "./upscaling.ts";

interface ServerOptions extends Pick<PrepareOptions, "onLine" | "onDownload" | "signal"> {
  config: ServeConfig;
  log: ServeLog;
  /** How pipelines are opened; tests bring others. */
  dependencies?: PipelineDependencies;
}

interface RunningServer {
  /** With the port. */
  url: string;
  /** Answers a request without a socket. */
  fetch: (request: Request) => Response | Promise<Response>;
  /** Stops what runs within a step, for the next server to take up, and frees everything. */
  stop(): Promise<void>;
}

/** Resolves when the server listens; the first model then loads. Rejects with `BasedXLError`. */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const { config, log, dependencies } = options;
  // Where a later part fails, what is open must not keep the process.
  await using opened = new AsyncDisposableStack();
  const catalog = await Catalog.open(config, options, dependencies);
  const connection = config.queue === undefined ? null : await openQueue(config.queue, log);
  opened.use(connection);
  const outputs = Outputs.open(config.outputs, { isShared: connection !== null });
  const store = JobStore.open(join(outputs.folder, storeName), (message) =>
    log.error("jobs_not_written", { message }),
  );
  opened.defer(() => store.close());
  const pool = new PipelinePool({
    ...{ maxModels: config.maxModels, dependencies },
    onLoad: (model, seconds) => {
      readiness.noteLoaded();
      service.metrics.loadSeconds.observe({ model }, seconds);
      log.info("model_loaded", { model, seconds });
    },
    onLoadFailed: ({ code }) => {
      if (code === "gpu-failed") readiness.noteGpuFailed();
    },
  });
  opened.defer(() => pool.close());
  const shares = parseShare(config.share, config.rankCount);
  const inputs = new Inputs(outputs.folder);
  const service = new QueuedJobs({
    ...{ config, catalog, store, outputs, inputs, log },
    loadedModels: () => pool.models().length,
    createRunner: (given) => {
      const shared = { ...given, config, catalog, outputs, inputs, log };
      return connection === null
        ? new Runner({ ...shared, pool, shares, hashCache: new HashCache() })
        : connection.createRunner(shared);
    },
  });
  opened.defer(() => service.stop());
  const capabilities = new ServerCapabilities(catalog, config);
  const readiness = new Readiness(() => !service.isReady);
  const [model, share] = [catalog.models[0]!, shares[0]!];
  const first = new FirstModel({ pool, model, share, readiness, log });
  const onLost = (lost: Pipeline) => void first.replace(lost);
  const waitingMax = config.maxQueue;
  const upscaling = connection === null ? new Upscaling({ pool, waitingMax, onLost }) : null;
  const app = createApp({
    ...{ config, service, capabilities, upscaling, catalog, outputs, log },
    metrics: service.metrics,
    whyNotReady: () => readiness.whyNot(),
    onRemove: (name) => store.removeFile(name),
  });
  const server = listen(config, app.fetch);
  // The workers have models of their own.
  if (connection !== null) readiness.noteLoaded();
  const begun = begin(service, connection === null ? first : null, log);
  void capabilities.complete();
  const rest = opened.move();
  return {
    url: String(server.url),
    fetch: (request) => app.fetch(request),
    async stop() {
      upscaling?.stop();
      await Promise.all([service.stop(), first.stop(), begun]);
      await server.stop(true);
      await rest.disposeAsync();
    },
  };
}

// --- internal ---

/** In the folder of outputs. */
const storeName = ".basedxl-jobs.sqlite";
/** Seconds after which a connection on which nothing happens is closed. */
const idleSeconds = 60;

/** Takes up the jobs of an earlier server, whatever becomes of the first model. Never rejects. */
async function begin(service: QueuedJobs, first: FirstModel | null, log: ServeLog): Promise<void> {
  await first?.load();
  if (first?.isStopped) return;
  await service.resume().catch(({ message }: Error) => log.error("jobs_not_resumed", { message }));
}

/** The code of queues is loaded where there is one. */
async function openQueue(url: string, log: ServeLog) {
  const { QueueConnection } = await import("./remote/connection.ts");
  const { RemoteRunner } = await import("./remote/runner.ts");
  const connection = await QueueConnection.open(url, log);
  return {
    createRunner(options: Omit<ConstructorParameters<typeof RemoteRunner>[0], "connection">) {
      return new RemoteRunner({ ...options, connection });
    },
    [Symbol.asyncDispose]: () => connection[Symbol.asyncDispose](),
  };
}

function listen(
  { host, port, maxBody }: ServeConfig,
  fetch: (request: Request, server: unknown) => Response | Promise<Response>,
) {
  try {
    return Bun.serve({
      ...{ hostname: host, port, fetch, websocket, idleTimeout: idleSeconds },
      // The app refuses smaller ones with a sentence.
      maxRequestBodySize: (maxBody + 1) * 2 ** 20,
    });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const why = code === "EADDRINUSE" ? "another program has the port" : escaped(message, 200);
    const where = `${escaped(host, 100)} port ${port}`;
    throw new BasedXLError("io", `Cannot listen on ${where}: ${why}. --port names another one.`);
  }
}
