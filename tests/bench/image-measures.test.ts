/**
 * PSNR and SSIM against scikit-image 0.26 (structural_similarity with gaussian_weights, sigma 1.5,
 * without sample covariance, on BT.601's luma) and against what follows from the definitions.
 */
import { expect, test } from "bun:test";
import { type Image, psnr, ssim } from "../../src/bench/image-measures.ts";

const width = 40;
const height = 29;

/** An image whose bytes follow from column, row, channel and place. */
function image(byteAt: (x: number, y: number, c: number, i: number) => number): Image {
  const pixels = Uint8Array.from({ length: width * height * 3 }, (_, i) => {
    const place = Math.floor(i / 3);
    return byteAt(place % width, Math.floor(place / width), i % 3, i);
  });
  return { pixels, width, height };
}

const noise = image((_x, _y, _c, i) => (i * i * 7 + i * 13) % 251);
const otherNoise = image((_x, _y, _c, i) => (i * i * 7 + i * 13 + (i % 17) * (i % 5)) % 251);
const slopeAt = (x: number, y: number, c: number) => (x * 5 + y * 3 + c * 20) % 256;
const slope = image(slopeAt);
const dotted = image((x, y, c) =>
  Math.min(255, Math.max(0, slopeAt(x, y, c) + (((x * y + c) % 9) - 4) * 3)),
);

test("SSIM and PSNR are scikit-image's", () => {
  expect(ssim(noise, otherNoise)).toBeCloseTo(0.672219292386563, 12);
  expect(psnr(noise, otherNoise)).toBeCloseTo(12.648003262192844, 10);
  expect(ssim(slope, dotted)).toBeCloseTo(0.831935823138639, 12);
  expect(psnr(slope, dotted)).toBeCloseTo(30.164003814820248, 10);
});

test("identical images", () => {
  expect(ssim(noise, noise)).toBe(1);
  expect(psnr(noise, noise)).toBe(Number.POSITIVE_INFINITY);
});

test("plain images differ by their brightness alone", () => {
  const dark = image(() => 100);
  const light = image(() => 120);
  const c1 = (0.01 * 255) ** 2;
  const expected = (2 * 100 * 120 + c1) / (100 ** 2 + 120 ** 2 + c1);
  // The variances are 0 but for rounding, beside a constant of 58.
  expect(ssim(dark, light)).toBeCloseTo(expected, 9);
  expect(psnr(dark, light)).toBeCloseTo(20 * Math.log10(255 / 20), 12);
});

test("either order gives the same, and sizes must agree", () => {
  expect(ssim(slope, dotted)).toBe(ssim(dotted, slope));
  const small = { pixels: new Uint8Array(10 * 10 * 3), width: 10, height: 10 };
  expect(() => ssim(small, small)).toThrow("11 pixels a side");
  expect(() => psnr(small, noise)).toThrow("10x10");
});
