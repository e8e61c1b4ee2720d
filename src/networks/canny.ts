/**
 * Canny's edges as OpenCV's `Canny(image, low, high)` has them: Sobel of 3x3 over edges that
 * continue, |dx| + |dy|, maxima across the edge, and weak edges that touch strong ones.
 * Source: OpenCV modules/imgproc/src/canny.cpp.
 */
import type { RawImage } from "../image/read.ts";

/** 255 on edges, 0 elsewhere. `image` is grey. */
export function canny(image: RawImage, { low, high }: { low: number; high: number }): Uint8Array {
  const { width, height } = image;
  const { dx, dy, size } = gradients(image);
  const out = new Uint8Array(width * height);
  const found: number[] = [];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = y * width + x;
      const m = size[at]!;
      if (m <= low || !isMaximum(x, y, m)) continue;
      out[at] = m > high ? strong : weak;
      if (m > high) found.push(at);
    }
  }
  // What touches a strong edge is one.
  for (let at = found.pop(); at !== undefined; at = found.pop()) {
    const [x, y] = [at % width, Math.floor(at / width)];
    for (let ny = Math.max(0, y - 1); ny <= Math.min(height - 1, y + 1); ny++) {
      for (let nx = Math.max(0, x - 1); nx <= Math.min(width - 1, x + 1); nx++) {
        const near = ny * width + nx;
        if (out[near] !== weak) continue;
        out[near] = strong;
        found.push(near);
      }
    }
  }
  return out.map((value) => (value === strong ? 255 : 0));

  /** Across the edge, in one of four directions; ties go to one side. */
  function isMaximum(x: number, y: number, m: number): boolean {
    const [gx, gy] = [dx[y * width + x]!, dy[y * width + x]!];
    const ax = Math.abs(gx);
    const ay = Math.abs(gy) * 2 ** 15;
    const slope = ax * tan22;
    if (ay < slope) return m > at(x - 1, y) && m >= at(x + 1, y);
    if (ay > slope + ax * 2 ** 16) return m > at(x, y - 1) && m >= at(x, y + 1);
    const s = (gx ^ gy) < 0 ? -1 : 1;
    return m > at(x - s, y - 1) && m > at(x + s, y + 1);
  }

  function at(x: number, y: number): number {
    return x < 0 || y < 0 || x >= width || y >= height ? 0 : size[y * width + x]!;
  }
}

// --- internal ---

const weak = 1;
const strong = 2;
/** tan(22.5 degrees) in 15 bits. */
const tan22 = 13573;

function gradients({ pixels, width, height }: RawImage) {
  const count = width * height;
  const [dx, dy, size] = [new Int32Array(count), new Int32Array(count), new Int32Array(count)];
  const near = (place: number, max: number) => Math.min(max - 1, Math.max(0, place));
  for (let y = 0; y < height; y++) {
    const [above, row, below] = [near(y - 1, height), y, near(y + 1, height)].map((r) => r * width);
    for (let x = 0; x < width; x++) {
      const [left, right] = [near(x - 1, width), near(x + 1, width)];
      const a = pixels[above! + left]!;
      const b = pixels[above! + x]!;
      const c = pixels[above! + right]!;
      const d = pixels[row! + left]!;
      const e = pixels[row! + right]!;
      const f = pixels[below! + left]!;
      const g = pixels[below! + x]!;
      const h = pixels[below! + right]!;
      const at = y * width + x;
      dx[at] = c + 2 * e + h - a - 2 * d - f;
      dy[at] = f + 2 * g + h - a - 2 * b - c;
      size[at] = Math.abs(dx[at]!) + Math.abs(dy[at]!);
    }
  }
  return { dx, dy, size };
}
