/**
 * The APIs of other programs, each translated to jobs of this one.
 */
import { Hono } from "hono";
import type { CapabilitySource } from "./capabilities.ts";
import type { ServeEnv } from "./environment.ts";
import type { JobService } from "./jobs/types.ts";

/** The routes of all dialects; their paths do not overlap. */
export function dialectRoutes(_service: JobService, _capabilities: CapabilitySource) {
  return new Hono<ServeEnv>();
}
