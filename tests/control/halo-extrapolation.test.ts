/**
 * Prediction of border rows is on by default exactly where measurements never found it to hurt.
 */
import { expect, test } from "bun:test";
import { predictsByDefault } from "../../src/pipeline/halo-extrapolation.ts";
import type { StepRow } from "../../src/schedule.ts";

const row: StepRow = {
  timestep: 1,
  inputScale: 1,
  outputFromSample: 0,
  outputFromModel: 1,
  latent: { sample: 1, saved: 0, history: [1, 0, 0, 0], noise: 0 },
  saved: null,
  drawsNoise: false,
};
const usual = {
  syncMode: "corrected_async_gn",
  rows: [row],
  bands: [8, 8],
  rowUnit: 4,
  warmupSteps: 4,
} as const;

test.each([
  { what: "the usual case", changes: {}, expected: true },
  { what: "the shortest warm-up", changes: { warmupSteps: 2 }, expected: true },
  { what: "a shorter warm-up", changes: { warmupSteps: 1 }, expected: false },
  { what: "one band", changes: { bands: [16] }, expected: false },
  { what: "another mode", changes: { syncMode: "stale_gn" as const }, expected: true },
  { what: "no old rows", changes: { syncMode: "full_sync" as const }, expected: false },
  { what: "rows of warm-up", changes: { syncMode: "no_sync" as const }, expected: false },
  { what: "one thin band", changes: { bands: [8, 4] }, expected: false },
  {
    what: "a sampler with noise",
    changes: { rows: [{ ...row, drawsNoise: true }] },
    expected: false,
  },
])("$what: $expected", ({ changes, expected }) => {
  expect(predictsByDefault({ ...usual, ...changes })).toBe(expected);
});
