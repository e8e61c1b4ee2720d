/**
 * Errors as A1111's API answers them: those of its own, and those of fields that cannot be read.
 * Source: A1111 and Forge, modules/api/api.py (api_middleware); FastAPI.
 */
import type { Context } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { BasedXLError } from "../../../errors.ts";
import { HttpError } from "../../environment.ts";
import { type JobError, QueueFull } from "../../jobs/types.ts";
import { isOfRequest, setHeaders } from "../../routes/errors.ts";

/** A field that cannot be read. */
export interface FieldProblem {
  loc: readonly string[];
  msg: string;
  type: string;
}

export class A1111Error extends Error {
  constructor(
    readonly status: ContentfulStatusCode,
    readonly detail: string | readonly FieldProblem[],
  ) {
    super(typeof detail === "string" ? detail : "Fields of the request cannot be read.");
  }
}

/** The error of something that A1111 has and this program has not. */
export function notThere(what: string): A1111Error {
  return new A1111Error(422, `${what} is not there.`);
}

/** The error of bytes that are no image. */
export function unreadableImage(): A1111Error {
  return new A1111Error(422, "Invalid encoded image");
}

/** Hono's `onError` for the dialect's paths. Bugs are answered without their message. */
export function a1111ErrorResponse(error: Error, c: Context): Response {
  if (error instanceof A1111Error && typeof error.detail !== "string") {
    return c.json({ detail: error.detail }, error.status);
  }
  setHeaders(error, c);
  const { status, name, detail, errors } = described(error);
  return c.json({ error: name, detail, body: "", errors }, status);
}

/** The error of a job that failed. */
export function errorOfJob({ code, message }: JobError): Error {
  return isOfRequest(code) ? new A1111Error(422, message) : new JobFailed(code, message);
}

// --- internal ---

class JobFailed extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

interface Described {
  status: ContentfulStatusCode;
  name: string;
  detail: string;
  errors: string;
}

function described(error: Error): Described {
  const http = (status: ContentfulStatusCode) => {
    return { status, name: "HTTPException", detail: error.message, errors: "" };
  };
  if (error instanceof A1111Error || error instanceof HttpError) return http(error.status);
  if (error instanceof QueueFull) return http(429);
  if (error instanceof BasedXLError) return http(422);
  if (error instanceof JobFailed) {
    const name = error.code === "no-memory" ? "OutOfMemoryError" : "RuntimeError";
    return { status: 500, name, detail: "", errors: error.message };
  }
  const errors = "Internal error of the server.";
  return { status: 500, name: "RuntimeError", detail: "", errors };
}
