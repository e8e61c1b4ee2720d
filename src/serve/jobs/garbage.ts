/**
 * Collects garbage after each job: what lives on lies scattered among what jobs leave, and the
 * engine moves nothing. Garbage of a few jobs spreads it over blocks of the heap that then stay.
 */
import { trimHeap } from "../../native/heap.ts";

/** Between collections, of the CPU time of the last one: nothing is answered meanwhile. */
const restMultiple = 20;
/** Where no other job ends meanwhile: an idle server does not keep the garbage of the last ones. */
const idleMs = 1000;
const freedMs = 300;

let restUntil = 0;
let timer: NodeJS.Timeout | undefined;

/**
 * When the job's last event is sent and a waiting job has begun, but before a client's next one:
 * little else lives on then. During a rest, when `idleMs` have passed without a call.
 */
export function collectGarbage(): void {
  clearTimeout(timer);
  const isRested = performance.now() >= restUntil;
  timer = setTimeout(collect, isRested ? 0 : idleMs).unref();
}

// --- internal ---

function collect(): void {
  const start = process.threadCpuUsage();
  Bun.gc(true);
  const { user, system } = process.threadCpuUsage(start);
  restUntil = performance.now() + (restMultiple * (user + system)) / 1000;
  // Buffers of what was collected are freed a little later.
  setTimeout(trimHeap, freedMs).unref();
}
