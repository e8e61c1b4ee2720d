/**
 * Pictures and all that leads to them equal PyTorch's and diffusers': every measure of
 * `bun run bench parity`, against its bar.
 */
import { expect, test } from "bun:test";
import { type Measure, measureParity } from "./support/parity.ts";

const measures: Measure[] = await Array.fromAsync(measureParity());

test("there is something to compare with", () => {
  expect(new Set(measures.map(({ model }) => model))).toEqual(
    new Set(["torch", "golden", "wide", "mini"]),
  );
});

test.each(measures)("$model: $what is within $allowed $unit", ({ measured, allowed }) => {
  expect(measured).toBeLessThanOrEqual(allowed);
});
