/**
 * Inputs of a job that only tests and benches pass. The request of a product run has an empty
 * pointer in their place.
 */
import { sizeOfTestHooks, writeTestHooks } from "./abi.ts";

export interface TestHooks {
  /** Group norms of patches as DistriFusion computes them: variance * n / (n - 1), no floor. */
  besselVariance?: boolean;
  /** Random delays before signals between ranks. */
  delaySeed?: number;
  /** Ranks count from 0, steps from 1. */
  fault?: { kind: "fail" | "stall"; rank: number; step: number };
  /** How long a rank waits for another. */
  stallLimitMs?: number;
  /** On GPUs, for benches: only this rank runs (from 0); zeros replace its peers' values. */
  onlyRank?: number;
  /** This rank (from 0) takes so many hundredths of its time for the UNet more. */
  slow?: { rank: number; percent: number };
}

/** The library's struct; null where there are none. */
export function testHookBytes(hooks: TestHooks | undefined): Uint8Array | null {
  if (hooks === undefined) return null;
  const { besselVariance, delaySeed, fault, stallLimitMs, onlyRank, slow } = hooks;
  const bytes = new Uint8Array(sizeOfTestHooks);
  writeTestHooks(new DataView(bytes.buffer), 0, {
    besselVariance: besselVariance ?? false,
    delaySeed: delaySeed ?? 0,
    fault: fault?.kind ?? "none",
    faultRank: fault?.rank ?? 0,
    faultStep: fault?.step ?? 0,
    stallLimitMs: stallLimitMs ?? 0,
    onlyRank: onlyRank === undefined ? 0 : onlyRank + 1,
    slowRank: slow === undefined ? 0 : slow.rank + 1,
    slowPercent: slow?.percent ?? 0,
  });
  return bytes;
}
