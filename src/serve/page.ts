/**
 * The page at `/`: static files that are embedded in the binary.
 */
import { Hono } from "hono";
import type { ServeEnv } from "./environment.ts";

/** The page and its files. */
export function pageRoutes() {
  return new Hono<ServeEnv>();
}
