/**
 * Connections on which nothing happens are closed by the server: those that wait for images or
 * events stay.
 */
import type { Context } from "hono";

/** Keeps the connection of a request open until it is answered whole. */
export function keepOpen(c: Context): void {
  const server = c.env as Partial<Pick<Bun.Server<unknown>, "timeout">> | undefined;
  server?.timeout?.(c.req.raw, 0);
}
