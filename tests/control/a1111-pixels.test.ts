/**
 * What --compat a1111 makes of pixels before and after sampling is what A1111 makes with Pillow and
 * OpenCV, to the level (tests/fixtures/a1111-pixels.json, made by
 * tests/reference/make_a1111_pixels.py).
 */
import { expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { a1111Resized } from "../../src/image/a1111-resize.ts";
import { filled } from "../../src/image/fill.ts";
import { opencvBlur } from "../../src/image/opencv-blur.ts";
import type { RawImage } from "../../src/image/read.ts";
import type { ResizeMode } from "../../src/image/transform.ts";
import { a1111MaskedArea } from "../../src/pipeline/masked-area.ts";

type Numbers = readonly [number, number, number, number];

const recorded: {
  blurred: Record<string, string>;
  filled: Record<string, string>;
  resized: Record<string, string>;
  areas: { bounds: Numbers; padding: number; size: readonly [number, number]; area: Numbers }[];
} = JSON.parse(readFileSync(join(import.meta.dir, "../fixtures/a1111-pixels.json"), "utf8"));

function sizeOf(text: string) {
  const [width, height] = text.split("x").map(Number) as [number, number];
  return { width, height };
}

function imageOf(text: string): RawImage {
  const { width, height } = sizeOf(text);
  const pixels = Uint8Array.from({ length: 3 * width * height }, (_, i) => {
    const [x, y] = [Math.floor(i / 3) % width, Math.floor(i / 3 / width)];
    return (7 * x + 13 * y + 70 * (i % 3) + Math.floor((x * y) / 3)) % 256;
  });
  return { width, height, pixels };
}

function maskOf(text: string): RawImage {
  const { width, height } = sizeOf(text);
  const pixels = Uint8Array.from({ length: width * height }, (_, i) => {
    const [x, y] = [i % width, Math.floor(i / width)];
    if (x >= 9 && x < width - 8 && y >= 5 && y < height - 12) return 255;
    return y >= height - 6 ? (11 * x + 5 * y) % 256 : 0;
  });
  return { width, height, pixels };
}

function digits({ pixels }: RawImage): string {
  return createHash("sha256").update(pixels).digest("hex").slice(0, 16);
}

test.each(Object.entries(recorded.blurred))("a mask blurred, %s", (name, expected) => {
  const [at = "", deviation] = name.split(" ");
  expect(digits(opencvBlur(maskOf(at), Number(deviation)))).toBe(expected);
});

test.each(Object.entries(recorded.filled))("an image filled, %s", async (at, expected) => {
  expect(digits(await filled(imageOf(at), maskOf(at)))).toBe(expected);
});

test.each(Object.entries(recorded.resized))("an image resized, %s", (name, expected) => {
  const [at = "", to = "", mode] = name.split(" ");
  const made = a1111Resized(imageOf(at), sizeOf(to), mode as ResizeMode);
  expect(digits(made)).toBe(expected);
});

test.each(recorded.areas)("the area of $bounds", ({ bounds, padding, size, area }) => {
  const [left, top, right, bottom] = bounds;
  const around = {
    bounds: { left, top, width: right - left, height: bottom - top },
    ...{ padding, shape: size[0] / size[1] },
  };
  const found = a1111MaskedArea(around, { width: 53, height: 37 });
  expect(found).toEqual({
    ...{ left: area[0], top: area[1] },
    ...{ width: area[2] - area[0], height: area[3] - area[1] },
  });
});
