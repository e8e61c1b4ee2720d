/**
 * Collects garbage after jobs. What jobs leave behind is mostly buffers and short-lived objects;
 * left to itself the heap of a server that is never idle goes up and down by tens of megabytes.
 */

/** A collection takes about 10 ms, in which nothing is answered. */
const everyMs = 5000;
let last = 0;

/** At most once in `everyMs`. */
export function collectGarbage(): void {
  const now = performance.now();
  if (now - last < everyMs) return;
  last = now;
  Bun.gc(true);
}
