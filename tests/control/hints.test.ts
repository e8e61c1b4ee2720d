/**
 * Hints made of images: canny against OpenCV (tests/fixtures/canny.json, made by
 * tests/reference/make_canny.py), and what the others keep.
 */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { makeHint } from "../../src/networks/hints.ts";
import { controlHint } from "../support/control-hint.ts";

const fixture: { width: number; height: number; edges: string[] } = JSON.parse(
  readFileSync(join(import.meta.dir, "../fixtures/canny.json"), "utf8"),
);
const { width, height } = fixture;

/** Those of make_canny.py. */
const pictures: ((x: number, y: number) => number)[] = [
  (x, y) => (3 * x + 7 * y + ((x * y) >> 4)) % 256,
  (x, y) => ((x - 30) ** 2 + (y - 25) ** 2 < 300 ? 210 : 40) + ((x * x + 5 * y) % 30),
  (x, y) => (Math.floor(x / 9) * 37 + Math.floor(y / 7) * 53) % 256,
];

test.each([0, 1, 2])("canny of picture %d is OpenCV's to the pixel", async (number) => {
  const pixels = new Uint8Array(3 * width * height);
  for (let i = 0; i < width * height; i++) {
    const value = pictures[number]!(i % width, Math.floor(i / width));
    pixels.set([value, Math.floor((value * 3) / 4) + 20, 255 - value], 3 * i);
  }
  const made = await makeHint({ pixels, width, height }, "canny");
  const bits = Buffer.from(fixture.edges[number]!, "base64");
  const expected = Uint8Array.from({ length: width * height }, (_, i) =>
    (bits[i >> 3]! >> (7 - (i & 7))) & 1 ? 255 : 0,
  );
  expect(expected.filter((value) => value > 0).length).toBeGreaterThan(50);
  expect(made.pixels.filter((_, i) => i % 3 === 0)).toEqual(expected);
});

test("hints have the image's size, and grey ones equal channels", async () => {
  const image = controlHint(40, 24);
  for (const how of ["none", "canny", "grey", "blur", "tile"] as const) {
    const hint = await makeHint(image, how);
    expect([hint.width, hint.height, hint.pixels.length]).toEqual([40, 24, 40 * 24 * 3]);
    const isGrey = how === "canny" || how === "grey";
    const differs = hint.pixels.some((value, i) => value !== hint.pixels[i - (i % 3)]);
    expect(differs).toBe(!isGrey);
  }
});
