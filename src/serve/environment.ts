/**
 * What every request of the server carries through its routes, and errors that are answers.
 */
import type { ContentfulStatusCode } from "hono/utils/http-status";

/** The environment of the server's hono apps. */
export interface ServeEnv {
  Variables: {
    /** Who asks: the API key's name, else a cookie or the address. `JobSpec.client`. */
    client: string;
  };
}

/** An answer that is an error: `{ error: { code, message } }` with this status. */
export class HttpError extends Error {
  constructor(
    readonly status: ContentfulStatusCode,
    readonly code: string,
    message: string,
    readonly headers: Readonly<Record<string, string>> = {},
  ) {
    super(message);
  }
}
