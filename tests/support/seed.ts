/**
 * The seed of what tests choose at random: BASEDXL_TEST_SEED, else another one every time. Put it
 * into the name of a test that uses it, so that a failure can be reproduced.
 */
import fc from "fast-check";

export const seed = Number(process.env.BASEDXL_TEST_SEED || Date.now() % 2 ** 31);

/** "BASEDXL_TEST_SEED=123", as a shell takes it. */
export const seedName = `BASEDXL_TEST_SEED=${seed}`;

/** `count` values that depend on the seed alone. */
export function sampled<T>(arbitrary: fc.Arbitrary<T>, count: number): T[] {
  return fc.sample(arbitrary, { numRuns: count, seed });
}
