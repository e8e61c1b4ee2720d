/**
 * Inputs of a job that only tests and comparisons give. A product run passes none: its request has
 * an empty pointer in their place.
 */
import { sizeOfTestHooks, writeTestHooks } from "./abi.ts";

export interface TestHooks {
  /** Group norms as DistriFusion's between patches: variance * n / (n - 1), no floor. */
  besselVariance?: boolean;
  /** Random delays before ranks tell each other anything. */
  delaySeed?: number;
  /** Ranks count from 0, steps from 1. */
  fault?: { kind: "fail" | "stall"; rank: number; step: number };
  /** How long a rank waits for another. */
  stallLimitMs?: number;
  /** On GPUs, for benches: this rank alone runs (from 0), with zeros in place of others' parts. */
  alone?: number;
}

/** The library's struct; null where there are none. */
export function testHookBytes(hooks: TestHooks | undefined): Uint8Array | null {
  if (hooks === undefined) return null;
  const { besselVariance, delaySeed, fault, stallLimitMs, alone } = hooks;
  const bytes = new Uint8Array(sizeOfTestHooks);
  writeTestHooks(new DataView(bytes.buffer), 0, {
    besselVariance: besselVariance ?? false,
    delaySeed: delaySeed ?? 0,
    fault: fault?.kind ?? "none",
    faultRank: fault?.rank ?? 0,
    faultStep: fault?.step ?? 0,
    stallLimitMs: stallLimitMs ?? 0,
    alone: alone === undefined ? 0 : alone + 1,
  });
  return bytes;
}
