/**
 * How tests measure one array against its reference; the benches do it the same way.
 */
export { maxAbs, relativeL2 } from "../../src/bench/support/compare.ts";
