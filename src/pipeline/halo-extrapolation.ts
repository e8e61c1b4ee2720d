/**
 * When old halo rows are predicted without being asked for. Only where it helped all but two of
 * the 40 images that were measured (src/bench/README.md): elsewhere it helps less often.
 */
import type { StepCoefficients } from "../schedule.ts";
import type { SyncMode } from "../settings/names.ts";

/** Thinner patches change too much between two rows for one to judge the other. */
const unitCountMin = 2;
/** The first changes after the noise are no guide to the next. */
const warmupStepsMin = 2;
/** Modes that read no halo rows one step old: there is nothing to predict. */
const neverOld: readonly SyncMode[] = ["full_sync", "no_sync"];

/**
 * `patches` are latent rows, dealt in units of `rowUnit`. Samplers that add noise are left out:
 * their last change says little about the next.
 */
export function extrapolatesByDefault(o: {
  syncMode: SyncMode;
  rows: readonly StepCoefficients[];
  patches: readonly number[];
  rowUnit: number;
  warmupSteps: number;
}): boolean {
  if (o.patches.length === 1 || neverOld.includes(o.syncMode)) return false;
  if (o.rows.some((row) => row.drawsNoise)) return false;
  if (o.warmupSteps < warmupStepsMin) return false;
  return o.patches.every((rowCount) => rowCount >= unitCountMin * o.rowUnit);
}
