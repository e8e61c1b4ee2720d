/**
 * Errors in OpenAI's shape: `{ error: { message, type, param, code } }`.
 */
import type { Context } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { BasedXLError } from "../../../errors.ts";
import { HttpError } from "../../environment.ts";
import { type JobError, QueueFull } from "../../jobs/types.ts";
import { isOfRequest, setHeaders } from "../../routes/errors.ts";

export class OpenAiError extends Error {
  constructor(
    readonly status: ContentfulStatusCode,
    readonly code: string,
    message: string,
    /** The field that is wrong. */
    readonly param: string | null = null,
  ) {
    super(message);
  }
}

/** What a field must be. */
export function invalidValue(param: string, message: string): OpenAiError {
  return new OpenAiError(400, "invalid_value", message, param);
}

/** Any error as OpenAI's. Bugs are answered without their message. */
function asOpenAiError(error: unknown): OpenAiError {
  if (error instanceof OpenAiError) return error;
  if (error instanceof HttpError) return new OpenAiError(error.status, error.code, error.message);
  if (error instanceof QueueFull) {
    return new OpenAiError(429, "rate_limit_exceeded", error.message);
  }
  if (error instanceof BasedXLError) return errorOfJob(error);
  return new OpenAiError(500, "internal_error", "Internal error of the server.");
}

/** How a job failed. */
export function errorOfJob({ code, message }: JobError): OpenAiError {
  if (isOfRequest(code)) return new OpenAiError(400, "invalid_value", message);
  return new OpenAiError(code === "cancelled" ? 409 : 500, code, message);
}

export function errorBody({ status, code, message, param }: OpenAiError) {
  return { error: { message, type: typeOf(status), param, code } };
}

/** Hono's `onError` for the dialect's paths. */
export function openAiErrorResponse(error: Error, c: Context): Response {
  const known = asOpenAiError(error);
  setHeaders(error, c);
  return c.json(errorBody(known), known.status);
}

// --- internal ---

function typeOf(status: number): string {
  if (status === 401) return "authentication_error";
  if (status === 429) return "rate_limit_error";
  return status < 500 ? "invalid_request_error" : "server_error";
}
