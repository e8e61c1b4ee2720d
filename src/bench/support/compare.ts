/**
 * Error measures of an array against its reference. Any NaN makes the result NaN, which fails every
 * `<=`: write limits as `expect(...).toBeLessThanOrEqual(bar)`, never negated.
 */

/** |ours - reference| / |reference| in the 2-norm, summed in doubles. 0 for two zero arrays. */
export function relativeL2(ours: ArrayLike<number>, reference: ArrayLike<number>): number {
  assertSameLength(ours, reference);
  let difference = 0;
  let scale = 0;
  for (let i = 0; i < reference.length; i++) {
    difference += (ours[i]! - reference[i]!) ** 2;
    scale += reference[i]! ** 2;
  }
  return difference === 0 ? 0 : Math.sqrt(difference / scale);
}

/** The largest |ours - reference| over all elements. */
export function maxAbs(ours: ArrayLike<number>, reference: ArrayLike<number>): number {
  assertSameLength(ours, reference);
  let largest = 0;
  for (let i = 0; i < reference.length; i++) {
    const difference = Math.abs(ours[i]! - reference[i]!);
    if (!(difference <= largest)) largest = difference;
    if (Number.isNaN(largest)) return Number.NaN;
  }
  return largest;
}

// --- internal ---

function assertSameLength(ours: ArrayLike<number>, reference: ArrayLike<number>): void {
  if (ours.length !== reference.length) {
    throw new Error(`ours has ${ours.length} elements, the reference ${reference.length}`);
  }
}
