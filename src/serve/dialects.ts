/**
 * The APIs of other programs, each translated to jobs of this one.
 */
import { type Context, Hono } from "hono";
import { a1111ErrorResponse } from "./dialects/a1111/errors.ts";
import { a1111Routes } from "./dialects/a1111/routes.ts";
import { PromptRefused, refusedResponse } from "./dialects/comfyui/errors.ts";
import { comfyUiRoutes } from "./dialects/comfyui/routes.ts";
import { openAiErrorResponse } from "./dialects/openai/errors.ts";
import { openAiRoutes } from "./dialects/openai/routes.ts";
import type { DialectServices } from "./dialects/services.ts";
import type { ServeEnv } from "./environment.ts";
import { errorResponse } from "./routes/errors.ts";

/** The routes of all dialects; their paths do not overlap. */
export function dialectRoutes(services: DialectServices) {
  const app = new Hono<ServeEnv>();
  app.route("/", openAiRoutes(services));
  app.route("/", a1111Routes(services));
  app.route("/", comfyUiRoutes(services));
  return app;
}

/** An error in the shape that clients of its path read. */
export function dialectErrorResponse(error: Error, c: Context): Response {
  const { path } = c.req;
  if (path.startsWith("/v1/")) return openAiErrorResponse(error, c);
  if (/^\/(sdapi|internal|controlnet)\//.test(path)) return a1111ErrorResponse(error, c);
  return error instanceof PromptRefused ? refusedResponse(error, c) : errorResponse(error, c);
}
