/**
 * Errors as answers: `{ error: { code, message } }` with the status that fits.
 */
import type { Context } from "hono";
import { HTTPException } from "hono/http-exception";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { BasedXLError, type ErrorCode } from "../../errors.ts";
import { HttpError } from "../environment.ts";
import { QueueFull } from "../jobs/types.ts";

/** Hono's `onError`. Bugs are answered without their message, which may name paths. */
export function errorResponse(error: Error, c: Context): Response {
  setHeaders(error, c);
  if (error instanceof HttpError) return answer(c, error.status, error.code, error.message);
  if (error instanceof QueueFull) return answer(c, 429, "queue-full", error.message);
  if (error instanceof BasedXLError) {
    return answer(c, statusOf[error.code] ?? 500, error.code, error.message);
  }
  if (error instanceof HTTPException) {
    return answer(c, error.status as ContentfulStatusCode, "bad-request", `${error.message}.`);
  }
  return answer(c, 500, "internal", "Internal error of the server: its log says more.");
}

/** Hono's `notFound`. */
export function notFound(c: Context): Response {
  return answer(c, 404, "not-found", "There is nothing at this address.");
}

/** Headers that an error's answer has, whatever the shape of its body. */
export function headersOf(error: Error): Readonly<Record<string, string>> {
  if (error instanceof QueueFull) return { "Retry-After": String(error.retryAfterSeconds) };
  return error instanceof HttpError ? error.headers : {};
}

/** Sets them on the answer that follows. */
export function setHeaders(error: Error, c: Context): void {
  for (const [name, value] of Object.entries(headersOf(error))) c.header(name, value);
}

/** Whether an error of this code is the request's: 400, and not the server's. */
export function isOfRequest(code: string): boolean {
  return statusOf[code as ErrorCode] === 400;
}

// --- internal ---

const statusOf: Readonly<Partial<Record<ErrorCode, ContentfulStatusCode>>> = {
  "bad-option": 400,
  "bad-model": 400,
  "bad-weights": 400,
  "no-memory": 507,
  io: 507,
  cancelled: 409,
};

function answer(c: Context, status: ContentfulStatusCode, code: string, message: string): Response {
  return c.json({ error: { code, message } }, status);
}
