/**
 * Error measures of arrays against references, shared with the benches.
 */
export { maxAbs, relativeL2 } from "../../src/bench/support/compare.ts";
