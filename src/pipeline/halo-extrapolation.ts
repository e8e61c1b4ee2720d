/**
 * When old border rows are predicted without being asked for. Only where it helped all but two of
 * the 40 pictures that were measured (src/bench/README.md): elsewhere it helps less often.
 */
import type { SyncMode } from "../native/session.ts";
import type { StepRow } from "../schedule.ts";

/** Thinner bands change too much between two rows for one to judge the other. */
const unitCountMin = 2;
/** The first changes after the noise are no guide to the next. */
const warmupStepsMin = 2;
/** Modes that read no border rows one step old: there is nothing to predict. */
const neverOld: readonly SyncMode[] = ["full_sync", "no_sync"];

/**
 * `bands` are latent rows, dealt in units of `rowUnit`. Samplers that add noise are left out: their
 * last change says little about the next.
 */
export function predictsByDefault(o: {
  syncMode: SyncMode;
  rows: readonly StepRow[];
  bands: readonly number[];
  rowUnit: number;
  warmupSteps: number;
}): boolean {
  if (o.bands.length === 1 || neverOld.includes(o.syncMode)) return false;
  if (o.rows.some((row) => row.drawsNoise)) return false;
  if (o.warmupSteps < warmupStepsMin) return false;
  return o.bands.every((rowCount) => rowCount >= unitCountMin * o.rowUnit);
}
