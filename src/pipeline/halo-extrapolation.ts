/**
 * When stale halo rows are extrapolated by default: where it brought all but two of the 40 measured
 * images (src/bench/README.md) closer to full synchronisation. Elsewhere it helps less often.
 */
import type { StepCoefficients } from "../schedule.ts";
import type { SyncMode } from "../settings/names.ts";

/** In thinner patches neighbouring rows change too differently for one to predict the other. */
const unitCountMin = 2;
/** The first changes after the noise are no guide to the next. */
const warmupStepsMin = 2;
/** Modes that read no halo rows of the last step: there is nothing to extrapolate. */
const neverOld: readonly SyncMode[] = ["full_sync", "no_sync"];

/**
 * `patches` are latent rows, dealt in units of `rowUnit`. Samplers that add noise are left out:
 * their last change says little about the next one.
 */
export function extrapolatesByDefault(o: {
  syncMode: SyncMode;
  steps: readonly StepCoefficients[];
  patches: readonly number[];
  rowUnit: number;
  warmupSteps: number;
}): boolean {
  if (o.patches.length === 1 || neverOld.includes(o.syncMode)) return false;
  if (o.steps.some((step) => step.samplesNoise)) return false;
  if (o.warmupSteps < warmupStepsMin) return false;
  return o.patches.every((rowCount) => rowCount >= unitCountMin * o.rowUnit);
}
