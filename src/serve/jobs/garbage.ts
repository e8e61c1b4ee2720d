/**
 * Collects garbage after jobs. What jobs leave behind is mostly buffers and short-lived objects;
 * left to itself the heap of a server that is never idle goes up and down by tens of megabytes.
 */
import { trimHeap } from "../../native/heap.ts";

/** A collection takes about 10 ms, in which nothing is answered. */
const everyMs = 5000;
/** Where no other job ends meanwhile: an idle server does not keep the garbage of the last ones. */
const idleMs = 1000;
const freedMs = 300;

let last = 0;
let timer: NodeJS.Timeout | undefined;

/** At once, but at most once in `everyMs`; otherwise when `idleMs` have passed without a call. */
export function collectGarbage(): void {
  clearTimeout(timer);
  if (performance.now() - last >= everyMs) collect();
  else timer = setTimeout(collect, idleMs).unref();
}

// --- internal ---

function collect(): void {
  last = performance.now();
  Bun.gc(true);
  // Buffers of what was collected are freed a little later.
  setTimeout(trimHeap, freedMs).unref();
}
