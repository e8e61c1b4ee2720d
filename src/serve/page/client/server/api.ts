/**
 * Requests to the server's own API. Every failure is an `ApiError` whose message is the server's
 * sentence, or says that the server cannot be reached.
 */
import { signal } from "@preact/signals";

export class ApiError extends Error {
  override readonly name = "ApiError";

  constructor(
    message: string,
    /** HTTP status; 0 where there was no answer. */
    readonly status: number,
    readonly code: string,
  ) {
    super(message);
  }
}

/** True while the server wants a key that it has not got. */
export const keyWanted = signal(false);

interface Call {
  method?: "GET" | "POST" | "DELETE";
  json?: unknown;
  body?: Blob;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

/** The response of `/api/v1` + `path`. Throws `ApiError`. */
export async function call(path: string, request: Call = {}): Promise<Response> {
  const { method = "GET", json, body, signal } = request;
  const headers: Record<string, string> = { ...request.headers };
  if (json !== undefined) headers["content-type"] = "application/json";
  const response = await fetch(addressOf(path), {
    method,
    headers,
    body: json === undefined ? (body ?? null) : JSON.stringify(json),
    signal: signal ?? null,
    credentials: "same-origin",
  }).catch((error: unknown) => {
    if ((error as Error).name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached.", 0, "unreachable");
  });
  if (response.ok || response.status === 304) return response;
  if (response.status === 401) keyWanted.value = true;
  throw await errorOf(response);
}

/** The same for JSON. */
export async function callJson<Answer>(path: string, request: Call = {}): Promise<Answer> {
  return (await (await call(path, request)).json()) as Answer;
}

/** Where an image, a preview or a thumbnail is. */
export function addressOf(path: string): string {
  return `/api/v1${path}`;
}

// --- internal ---

async function errorOf(response: Response): Promise<ApiError> {
  const answer: unknown = await response.json().catch(() => null);
  const error = (answer as { error?: { code?: string; message?: string } } | null)?.error;
  const message = error?.message ?? `The server answered ${response.status}.`;
  return new ApiError(message, response.status, error?.code ?? "unknown");
}
