/**
 * Enlarging latents: torch's interpolate, and properties of it.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { formulaInput, relativeL2From } from "../../src/bench/support/references.ts";
import { readSafetensors } from "../../src/bench/support/safetensors.ts";
import { type InterpolateMode, interpolated } from "../../src/pipeline/latent-resize.ts";

const recorded = readSafetensors(join(import.meta.dir, "../fixtures/upscalers.safetensors"));
const modes: readonly InterpolateMode[] = ["bilinear", "bicubic", "nearest-exact"];

test.each(modes)("%s as torch", (mode) => {
  const { data } = formulaInput("upscalers.latent", [1, 2, 5, 6], 3);
  const larger = interpolated(data, { width: 6, height: 5 }, { width: 12, height: 8 }, mode);
  expect(larger.length).toBe(2 * 8 * 12);
  expect(relativeL2From(recorded, mode, larger)).toBeLessThan(1e-6);
});

test.each(modes)("%s keeps what has the size, and constants", (mode) => {
  const { data } = formulaInput("any", [3, 4, 5], 1);
  const size = { width: 5, height: 4 };
  expect(interpolated(data, size, size, mode)).toEqual(data);
  const constant = interpolated(new Float32Array(20).fill(2), size, { width: 13, height: 9 }, mode);
  expect(constant.every((value) => Math.abs(value - 2) < 1e-6)).toBe(true);
});
