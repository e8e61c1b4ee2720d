/**
 * Image similarity: PSNR and SSIM. Both take RGB bytes, height × width × 3, and return a mean over
 * the image; identical images have infinite PSNR and an SSIM of 1.
 */

/** An image as sessions return it. */
export interface Image {
  pixels: Uint8Array;
  width: number;
  height: number;
}

/** Peak signal-to-noise ratio in decibels, over all three channels; 255 is the peak. */
export function psnr(ours: Image, reference: Image): number {
  assertSameSize(ours, reference);
  let sum = 0;
  for (let i = 0; i < reference.pixels.length; i++) {
    sum += (ours.pixels[i]! - reference.pixels[i]!) ** 2;
  }
  if (sum === 0) return Number.POSITIVE_INFINITY;
  return 10 * Math.log10(255 ** 2 / (sum / reference.pixels.length));
}

/**
 * Structural similarity of the two lumas: Wang, Bovik, Sheikh and Simoncelli, "Image quality
 * assessment: from error visibility to structural similarity", 2004: an 11x11 Gaussian window of
 * sigma 1.5, K1 = 0.01, K2 = 0.03, the mean over all positions where the window fits.
 */
export function ssim(ours: Image, reference: Image): number {
  assertSameSize(ours, reference);
  const { width, height } = reference;
  if (width < windowSide || height < windowSide) {
    throw new Error(`SSIM needs ${windowSide} pixels a side, not ${width}x${height}`);
  }
  const x = luma(ours);
  const y = luma(reference);
  const mean = (at: (i: number) => number) =>
    blur(
      Float64Array.from(x, (_, i) => at(i)),
      width,
    );
  const xMean = mean((i) => x[i]!);
  const yMean = mean((i) => y[i]!);
  const xx = mean((i) => x[i]! ** 2);
  const yy = mean((i) => y[i]! ** 2);
  const xy = mean((i) => x[i]! * y[i]!);
  let sum = 0;
  for (let i = 0; i < xMean.length; i++) {
    const product = xMean[i]! * yMean[i]!;
    const squares = xMean[i]! ** 2 + yMean[i]! ** 2;
    const covariance = xy[i]! - product;
    const variances = xx[i]! + yy[i]! - squares;
    sum += ((2 * product + c1) * (2 * covariance + c2)) / ((squares + c1) * (variances + c2));
  }
  return sum / xMean.length;
}

// --- internal ---

const windowSide = 11;
const sigma = 1.5;
const c1 = (0.01 * 255) ** 2;
const c2 = (0.03 * 255) ** 2;

const gaussian = (() => {
  const centre = (windowSide - 1) / 2;
  const raw = Array.from({ length: windowSide }, (_, i) =>
    Math.exp(-((i - centre) ** 2) / (2 * sigma ** 2)),
  );
  const sum = raw.reduce((total, value) => total + value, 0);
  return raw.map((value) => value / sum);
})();

/** ITU-R BT.601's weights, as in the paper's own program. */
function luma({ pixels }: Image): Float64Array {
  const out = new Float64Array(pixels.length / 3);
  for (let i = 0; i < out.length; i++) {
    const at = 3 * i;
    out[i] = 0.299 * pixels[at]! + 0.587 * pixels[at + 1]! + 0.114 * pixels[at + 2]!;
  }
  return out;
}

/** Weighted means over the window, valid positions only: each side loses `windowSide - 1`. */
function blur(values: Float64Array, width: number): Float64Array {
  const height = values.length / width;
  const outWidth = width - windowSide + 1;
  const outHeight = height - windowSide + 1;
  const across = new Float64Array(outWidth * height);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < outWidth; column++) {
      let sum = 0;
      for (let k = 0; k < windowSide; k++) sum += gaussian[k]! * values[row * width + column + k]!;
      across[row * outWidth + column] = sum;
    }
  }
  const out = new Float64Array(outWidth * outHeight);
  for (let row = 0; row < outHeight; row++) {
    for (let column = 0; column < outWidth; column++) {
      let sum = 0;
      for (let k = 0; k < windowSide; k++) {
        sum += gaussian[k]! * across[(row + k) * outWidth + column]!;
      }
      out[row * outWidth + column] = sum;
    }
  }
  return out;
}

function assertSameSize(ours: Image, reference: Image): void {
  if (ours.width === reference.width && ours.height === reference.height) return;
  throw new Error(
    `ours is ${ours.width}x${ours.height}, the reference ${reference.width}x${reference.height}`,
  );
}
