/**
 * Blurs a mask as OpenCV's GaussianBlur does with 8 bits, to the level, with the kernel that A1111
 * asks for: weights of 8 bits that add up to one, across and then down.
 * Sources: OpenCV's modules/imgproc/src/smooth.dispatch.cpp (getGaussianKernelFixedPoint_ED);
 * AUTOMATIC1111 modules/processing.py.
 */
import type { RawImage } from "./read.ts";

/** Of grey; the standard deviation is in pixels. */
export function opencvBlur({ pixels, width, height }: RawImage, deviation: number): RawImage {
  const weights = weightsOf(deviation);
  const across = new Uint8Array(pixels.length);
  const both = new Uint8Array(pixels.length);
  for (let y = 0; y < height; y++) blurLine(pixels, across, weights, y * width, 1, width);
  for (let x = 0; x < width; x++) blurLine(across, both, weights, x, width, height);
  return { pixels: both, width, height };
}

// --- internal ---

/** Of 256. Each passes its rounding error on to the next one. */
function weightsOf(deviation: number): number[] {
  const reach = Math.trunc(2.5 * deviation + 0.5);
  const shares = Array.from({ length: 2 * reach + 1 }, (_, i) =>
    Math.exp(-((i - reach) ** 2) / (2 * deviation * deviation)),
  );
  const total = shares.reduce((sum, share) => sum + share, 0);
  let error = 0;
  const half = shares.slice(0, reach).map((share) => {
    const exact = (256 * share) / total + error;
    const weight = roundHalfEven(exact);
    error = exact - weight;
    return weight;
  });
  const middle = 256 - 2 * half.reduce((sum, weight) => sum + weight, 0);
  return [...half, middle, ...half.toReversed()];
}

function roundHalfEven(value: number): number {
  const below = Math.floor(value);
  const part = value - below;
  return part > 0.5 || (part === 0.5 && below % 2 !== 0) ? below + 1 : below;
}

/** What is beyond the ends is mirrored, the last pixel not repeated. */
function blurLine(
  from: Uint8Array,
  to: Uint8Array,
  weights: readonly number[],
  first: number,
  stride: number,
  count: number,
): void {
  const reach = weights.length >> 1;
  for (let i = 0; i < count; i++) {
    let sum = 128;
    for (const [k, weight] of weights.entries()) {
      sum += weight * from[first + mirrored(i + k - reach, count) * stride]!;
    }
    to[first + i * stride] = sum >> 8;
  }
}

function mirrored(at: number, count: number): number {
  if (count === 1) return 0;
  let place = at;
  while (place < 0 || place >= count) place = place < 0 ? -place : 2 * (count - 1) - place;
  return place;
}
