/**
 * The process that runs the cases of one target, from an index on, until it is stopped. Arguments:
 * target, seed, first index, index after the last, a file that has the index of the running case.
 * Writes a line of JSON for each crash and every second.
 */
import { openSync, writeSync } from "node:fs";
import { MemoryWatch } from "./memory.ts";
import { Random } from "./random.ts";
import type { Target } from "./target.ts";
import { openTarget } from "./targets.ts";

export interface WorkerLine {
  /** The index after the last case that ended. */
  next: number;
  crash?: { index: number; reason: string };
  isDone?: boolean;
}

/** A case that takes longer twice is reported: machines that run tests are busy. */
const caseMsMax = 5_000;

if (import.meta.main) await work(process.argv.slice(2));

/** Runs one case; the reason of its crash, null where it is none. */
export async function runCase(target: Target, seed: number, index: number): Promise<string | null> {
  const first = await runOnce(target, seed, index);
  if (typeof first !== "number") return first;
  const again = first > caseMsMax ? await runOnce(target, seed, index) : 0;
  if (typeof again !== "number") return again;
  return again > caseMsMax ? `it took ${Math.round(again)} ms` : null;
}

// --- internal ---

/** Milliseconds, or the reason of a crash. */
async function runOnce(target: Target, seed: number, index: number): Promise<string | number> {
  const startMs = performance.now();
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error("no end")), 6 * caseMsMax);
  try {
    const value = target.make(new Random(seed, index)) as never;
    await Promise.race([late, target.run(value)]);
    return performance.now() - startMs;
  } catch (error) {
    return error instanceof Error ? (error.stack ?? error.message) : String(error);
  } finally {
    clearTimeout(timer);
  }
}

async function work([name, seed, first, end, place]: string[]): Promise<void> {
  const file = openSync(place!, "w");
  const running = Buffer.alloc(8);
  let toldMs = performance.now();
  const target = await openTarget(name!);
  const memory = new MemoryWatch();
  const tell = (line: WorkerLine) => process.stdout.write(`${JSON.stringify(line)}\n`);
  for (let index = Number(first); index < Number(end); index++) {
    running.writeDoubleLE(index);
    writeSync(file, running, 0, 8, 0);
    const reason = await runCase(target, Number(seed), index);
    const found = reason ?? memory.afterCase();
    if (found !== null) tell({ next: index + 1, crash: { index, reason: found } });
    if (performance.now() - toldMs < 1000) continue;
    toldMs = performance.now();
    tell({ next: index + 1 });
  }
  tell({ next: Number(end), isDone: true });
}
