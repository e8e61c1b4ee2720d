/**
 * Answers that a client keeps and asks for again by their tag: they are sent again where it
 * differs.
 */
import type { Context } from "hono";

/** Sets the tag; 304 where the client has this one, else null. */
export function unchanged(
  c: Context,
  etag: string,
  caching = "private, no-cache",
): Response | null {
  c.header("ETag", etag);
  c.header("Cache-Control", caching);
  return c.req.header("If-None-Match") === etag ? c.body(null, 304) : null;
}
