/**
 * Halo extrapolation is on by default exactly where the measurements showed no harm.
 */
import { expect, test } from "bun:test";
import { extrapolatesByDefault } from "../../src/pipeline/layout.ts";
import type { StepCoefficients } from "../../src/schedule.ts";

const step: StepCoefficients = {
  timestep: 1,
  inputScale: 1,
  outputFromSample: 0,
  outputFromModel: 1,
  latent: { sample: 1, auxiliary: 0, modelOutputs: [1, 0, 0, 0], noise: 0 },
  auxiliary: null,
  samplesNoise: false,
};
const usual = {
  syncMode: "corrected_async_gn",
  steps: [step],
  patches: [8, 8],
  rowUnit: 4,
  warmupSteps: 4,
} as const;

test.each([
  { what: "the usual case", changes: {}, expected: true },
  { what: "the shortest warm-up", changes: { warmupSteps: 2 }, expected: true },
  { what: "a shorter warm-up", changes: { warmupSteps: 1 }, expected: false },
  { what: "one patch", changes: { patches: [16] }, expected: false },
  { what: "another mode", changes: { syncMode: "stale_gn" as const }, expected: true },
  { what: "no old rows", changes: { syncMode: "full_sync" as const }, expected: false },
  { what: "rows of warm-up", changes: { syncMode: "no_sync" as const }, expected: false },
  { what: "one thin patch", changes: { patches: [8, 4] }, expected: false },
  {
    what: "a sampler with noise",
    changes: { steps: [{ ...step, samplesNoise: true }] },
    expected: false,
  },
])("$what: $expected", ({ changes, expected }) => {
  expect(extrapolatesByDefault({ ...usual, ...changes })).toBe(expected);
});
