/**
 * Arguments of the `bun test` that runs, and the processes that it gets. Bun's --parallel has no
 * place in bunfig.toml, and most test files keep one core busy.
 */
import { existsSync, readFileSync } from "node:fs";

/** Each process has threads for all cores, and models in memory. */
const processCountMax = 4;
/** Of a test, instead of 5000: the cores are shared. */
const timeoutMs = 30_000;

/** Bun hides the arguments of `bun test` from scripts; Linux reports them, others give null. */
export function testArguments(): string[] | null {
  const path = "/proc/self/cmdline";
  return existsSync(path) ? readFileSync(path, "utf8").split("\0").slice(1, -1) : null;
}

/** `bun test` alone becomes one process for each core; with any argument it stays as typed. */
export function withProcesses(typed: string[], coreCount: number): string[] {
  const count = Math.min(coreCount, processCountMax);
  if (typed.length > 1 || count < 2) return typed;
  return [...typed, `--parallel=${count}`, `--timeout=${timeoutMs}`];
}
