/**
 * The server's routes put together, behind the checks that all of them share. Whoever adds a group
 * of routes adds a line here.
 */
import { Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import type { CapabilitySource } from "./capabilities.ts";
import type { Catalog } from "./catalog.ts";
import { dialectErrorResponse, dialectRoutes } from "./dialects.ts";
import { HttpError, type ServeEnv } from "./environment.ts";
import type { JobService } from "./jobs/types.ts";
import type { ServeLog } from "./log.ts";
import type { Metrics } from "./metrics.ts";
import { documentRoutes } from "./openapi.ts";
import type { Outputs } from "./outputs.ts";
import { pageRoutes } from "./page.ts";
import { notFound } from "./routes/errors.ts";
import { hintRoutes } from "./routes/hints.ts";
import { imageRoutes } from "./routes/images.ts";
import { jobRoutes } from "./routes/jobs.ts";
import { systemRoutes } from "./routes/system.ts";
import { allowOrigins, checkSource, identify, Keys, safeHeaders } from "./security.ts";
import type { ServeConfig } from "./settings.ts";
import type { Upscaling } from "./upscaling.ts";

interface AppOptions {
  config: Pick<
    ServeConfig,
    "host" | "apiKeys" | "allowHosts" | "allowOrigins" | "maxBody" | "maxPixels"
  >;
  service: JobService;
  capabilities: CapabilitySource;
  upscaling: Upscaling | null;
  catalog: Catalog;
  outputs: Outputs;
  metrics: Metrics;
  log: ServeLog;
  whyNotReady: () => string | null;
  /** Called with the name of an image that was deleted. */
  onRemove: (name: string) => void;
}

/** The app of `server.ts`, also called by tests without a socket. */
export function createApp(options: AppOptions): Hono<ServeEnv> {
  const { config, service, capabilities, upscaling, metrics, log } = options;
  const keys = new Keys(config.apiKeys);
  const app = new Hono<ServeEnv>();
  app.onError((error, c) => {
    const response = dialectErrorResponse(error, c);
    if (response.status >= 500 && !(error instanceof HttpError)) {
      log.error("request_bug", { path: c.req.path, message: error.stack ?? error.message });
    }
    return response;
  });
  app.notFound(notFound);
  app.use(async (c, next) => {
    const startMs = performance.now();
    await next();
    const { method, path } = c.req;
    const { status } = c.res;
    metrics.requests.inc({ method: methods.has(method) ? method : "other", status });
    const ms = Math.round(performance.now() - startMs);
    log.debug("request", { method, path, status, ms, client: c.get("client") });
  });
  app.use(safeHeaders());
  app.use(checkSource(config));
  app.use(allowOrigins(config));
  app.use(identify(keys, addressOf, isOpen));
  const maxSize = config.maxBody * 2 ** 20;
  app.use(bodyLimit({ maxSize, onError: () => tooLarge(config.maxBody) }));
  app.route("/", systemRoutes({ ...options, keys }));
  app.route("/", jobRoutes(service));
  app.route("/", imageRoutes(options));
  app.route("/", hintRoutes(options));
  app.route("/", documentRoutes());
  const { folder } = options.outputs;
  app.route("/", dialectRoutes({ jobs: service, capabilities, upscaling, folder }));
  app.route("/", pageRoutes());
  return app;
}

// --- internal ---

const methods = new Set(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"]);

/** Paths that show nothing of anybody's, and the page that asks for the key. */
function isOpen(path: string): boolean {
  return openPaths.has(path);
}

const openPaths = new Set([
  ...["/", "/page.js", "/page.css", "/icon.svg", "/favicon.ico"],
  ...["/health", "/ready", "/docs", "/docs/style.css", "/openapi.json"],
  ...["/api/v1/login", "/api/v1/logout"],
]);

function tooLarge(mebibytes: number): never {
  throw new HttpError(413, "too-large", `The body of a request has at most ${mebibytes} MiB.`);
}

function addressOf(env: unknown, request: Request): string {
  const server = env as Partial<Bun.Server<unknown>> | undefined;
  return server?.requestIP?.(request)?.address ?? "local";
}
