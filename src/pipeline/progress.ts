/**
 * How far loading or a batch has come.
 */
import type * as abi from "../native/abi.ts";

export interface Progress {
  stage: keyof typeof abi.Stage;
  /** Finished steps. */
  stepIndex: number;
  stepCount: number;
  /** Fraction of the weights that is loaded, 0 to 1. */
  loadFraction: number;
  /** Fraction of the adapted weights that is merged, 0 to 1. */
  adaptFraction: number;
}
