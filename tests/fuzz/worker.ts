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

/** Of the process: machines that run tests are busy, and a case may have to wait for its turn. */
const caseCpuMsMax = 5_000;
/** Below `caseCpuMsMax` on 50 cores. */
const shortMs = 100;
/** Asking the system takes as long as many a case. */
const cpuAskMs = 20;
let asked = { atMs: Number.NEGATIVE_INFINITY, cpuMs: 0 };
/** A case that computes nothing is asked so often whether it has ended. */
const asksMax = 30;
const askMs = 10_000;

if (import.meta.main) await work(process.argv.slice(2));

/** Runs one case; the reason of its crash, null where it is none. */
export async function runCase(target: Target, seed: number, index: number): Promise<string | null> {
  const startMs = performance.now();
  const startCpuMs = recentCpuMs(startMs);
  const { promise: late, reject } = Promise.withResolvers<never>();
  let asks = 0;
  const timer = setInterval(() => {
    asks += 1;
    if (asks === asksMax) reject(new Error("no end"));
  }, askMs);
  try {
    const value = target.make(new Random(seed, index)) as never;
    await Promise.race([late, target.run(value)]);
    // Of a short case, no number of threads has computed for so long.
    if (performance.now() - startMs < shortMs) return null;
    const ms = cpuMs() - startCpuMs;
    return ms > caseCpuMsMax ? `it took ${Math.round(ms)} ms of CPU time` : null;
  } catch (error) {
    return error instanceof Error ? (error.stack ?? error.message) : String(error);
  } finally {
    clearInterval(timer);
  }
}

// --- internal ---

/** The process's time on all cores, up to `cpuAskMs` ago. */
function recentCpuMs(nowMs: number): number {
  if (nowMs - asked.atMs > cpuAskMs) asked = { atMs: nowMs, cpuMs: cpuMs() };
  return asked.cpuMs;
}

function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
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
    const found = reason ?? (await memory.afterCase());
    if (found !== null) tell({ next: index + 1, crash: { index, reason: found } });
    if (performance.now() - toldMs < 1000) continue;
    toldMs = performance.now();
    tell({ next: index + 1 });
    // Cases that wait for promises alone let no timer of theirs end.
    await Bun.sleep(1);
  }
  tell({ next: Number(end), isDone: true });
}
