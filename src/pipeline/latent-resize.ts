/**
 * Enlarges latents as torch.nn.functional.interpolate does with a size, without aligned corners and
 * without antialiasing, in each direction by itself.
 */
import type { Size } from "../image/encoder.ts";

/** torch's names of the modes. */
export type InterpolateMode = "bilinear" | "bicubic" | "nearest-exact";

/** Planes of `from`, row by row and one behind the other, to planes of `to`. */
export function interpolated(
  values: Float32Array,
  from: Size,
  to: Size,
  mode: InterpolateMode,
): Float32Array {
  const columns = tapsOf(from.width, to.width, mode);
  const rows = tapsOf(from.height, to.height, mode);
  const planeCount = values.length / (from.width * from.height);
  const out = new Float32Array(planeCount * to.width * to.height);
  // Sums are in f64 until the end.
  const wide = new Float64Array(from.height * to.width);
  for (let plane = 0; plane < planeCount; plane++) {
    const source = values.subarray(plane * from.width * from.height);
    for (let y = 0; y < from.height; y++) {
      for (let x = 0; x < to.width; x++) {
        wide[y * to.width + x] = sumOf(columns[x]!, (at) => source[y * from.width + at]!);
      }
    }
    const first = plane * to.width * to.height;
    for (let y = 0; y < to.height; y++) {
      for (let x = 0; x < to.width; x++) {
        out[first + y * to.width + x] = sumOf(rows[y]!, (at) => wide[at * to.width + x]!);
      }
    }
  }
  return out;
}

// --- internal ---

interface Tap {
  at: number;
  weight: number;
}

/** Of each place of `out` those of `size` that it is a mean of. */
function tapsOf(size: number, out: number, mode: InterpolateMode): Tap[][] {
  const scale = size / out;
  const inside = (at: number) => Math.min(size - 1, Math.max(0, at));
  return Array.from({ length: out }, (_, place) => {
    if (mode === "nearest-exact")
      return [{ at: inside(Math.floor((place + 0.5) * scale)), weight: 1 }];
    const centre = (place + 0.5) * scale - 0.5;
    // torch moves bilinear centres inside, and bicubic ones not.
    const from = mode === "bilinear" ? Math.max(0, centre) : centre;
    const first = Math.floor(from);
    const share = from - first;
    const weights = mode === "bilinear" ? [1 - share, share] : cubicWeights(share);
    const start = mode === "bilinear" ? first : first - 1;
    return weights.map((weight, i) => ({ at: inside(start + i), weight }));
  });
}

/** Of the two places before and the two behind (Keys, a = -0.75). */
function cubicWeights(t: number): number[] {
  const a = -0.75;
  const near = (x: number) => ((a + 2) * x - (a + 3)) * x * x + 1;
  const far = (x: number) => ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
  return [far(t + 1), near(t), near(1 - t), far(2 - t)];
}

function sumOf(taps: readonly Tap[], value: (at: number) => number): number {
  let sum = 0;
  for (const { at, weight } of taps) sum += weight * value(at);
  return sum;
}
