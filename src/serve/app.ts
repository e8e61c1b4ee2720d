/**
 * The server's routes put together. Whoever adds a group of routes adds a line here.
 */
import { Hono } from "hono";
import type { CapabilitySource } from "./capabilities.ts";
import { dialectRoutes } from "./dialects.ts";
import type { ServeEnv } from "./environment.ts";
import type { JobService } from "./jobs/types.ts";
import { pageRoutes } from "./page.ts";
import { errorResponse, notFound } from "./routes/errors.ts";
import { jobRoutes } from "./routes/jobs.ts";

interface AppOptions {
  service: JobService;
  capabilities: CapabilitySource;
  /** Who asks, where no key says it. */
  clientOf: (request: Request) => string;
}

/** The app of `server.ts`, also called by tests without a socket. */
export function createApp({ service, capabilities, clientOf }: AppOptions): Hono<ServeEnv> {
  const app = new Hono<ServeEnv>();
  app.onError(errorResponse);
  app.notFound(notFound);
  app.use(async (c, next) => {
    c.set("client", clientOf(c.req.raw));
    await next();
  });
  app.route("/", jobRoutes(service));
  app.route("/", dialectRoutes(service, capabilities));
  app.route("/", pageRoutes());
  return app;
}
