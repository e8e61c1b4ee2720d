/**
 * Images in another size, by the methods that ComfyUI has names for, of which A1111 has two: those
 * of torch's `interpolate` (without antialiasing) and Pillow's Lanczos. Source: ComfyUI,
 * comfy/utils.py (common_upscale); PyTorch, UpSample.h; Pillow, Resample.c.
 */
import type { Size } from "../../image/encoder.ts";
import type { RawImage } from "../../image/read.ts";

export type UpscaleMethod = "nearest-exact" | "bilinear" | "area" | "bicubic" | "lanczos";

/** Each direction on its own; the event loop is let go on between rows. */
export async function resampled(
  { pixels, width, height }: RawImage,
  size: Size,
  method: UpscaleMethod,
): Promise<RawImage> {
  if (width === size.width && height === size.height) return { pixels, width, height };
  const channels = pixels.length / (width * height);
  const across = tapsOf(method, width, size.width);
  const down = tapsOf(method, height, size.height);
  const rowLength = size.width * channels;
  const rows = new Float32Array(height * rowLength);
  const pause = pauses();
  for (let row = 0; row < height; row++) {
    await pause();
    const from = row * width * channels;
    for (const [column, { first, weights }] of across.entries()) {
      for (let c = 0; c < channels; c++) {
        let sum = 0;
        for (const [tap, weight] of weights.entries()) {
          sum += weight * pixels[from + (first + tap) * channels + c]!;
        }
        rows[row * rowLength + column * channels + c] = sum;
      }
    }
  }
  const resized = new Uint8ClampedArray(size.height * rowLength);
  for (const [row, { first, weights }] of down.entries()) {
    await pause();
    for (let at = 0; at < rowLength; at++) {
      let sum = 0;
      for (const [tap, weight] of weights.entries()) {
        sum += weight * rows[(first + tap) * rowLength + at]!;
      }
      resized[row * rowLength + at] = sum;
    }
  }
  return { ...size, pixels: new Uint8Array(resized.buffer) };
}

// --- internal ---

/** What a new pixel is made of: neighbours from `first` on. */
interface Taps {
  first: number;
  weights: readonly number[];
}

function tapsOf(method: UpscaleMethod, from: number, to: number): Taps[] {
  const scale = from / to;
  return Array.from({ length: to }, (_, at) => {
    if (method === "nearest-exact") return edged([Math.floor((at + 0.5) * scale)], [1], from);
    if (method === "area") return averaged(Math.floor(at * scale), Math.ceil((at + 1) * scale));
    if (method === "lanczos") return lanczosTaps((at + 0.5) * scale, Math.max(1, scale), from);
    const place = (at + 0.5) * scale - 0.5;
    const base = Math.floor(place);
    const share = place - base;
    if (method === "bilinear") return edged([base, base + 1], [1 - share, share], from);
    const places = [base - 1, base, base + 1, base + 2];
    return edged(
      places,
      places.map((each) => cubic(Math.abs(place - each))),
      from,
    );
  });
}

/** Places beyond the edge are those at the edge. */
function edged(places: readonly number[], weights: readonly number[], count: number): Taps {
  const inside = places.map((place) => Math.min(count - 1, Math.max(0, place)));
  const first = inside[0]!;
  const sums = new Array<number>(inside.at(-1)! - first + 1).fill(0);
  for (const [tap, place] of inside.entries()) sums[place - first]! += weights[tap]!;
  return { first, weights: sums };
}

function averaged(first: number, end: number): Taps {
  return { first, weights: new Array<number>(end - first).fill(1 / (end - first)) };
}

/** Keys' kernel with torch's factor. */
function cubic(x: number): number {
  const a = -0.75;
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

function lanczosTaps(center: number, filterScale: number, count: number): Taps {
  const support = 3 * filterScale;
  const first = Math.max(0, Math.trunc(center - support + 0.5));
  const end = Math.min(count, Math.trunc(center + support + 0.5));
  const weights = Array.from({ length: end - first }, (_, tap) => {
    const x = (first + tap - center + 0.5) / filterScale;
    return Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0;
  });
  const sum = weights.reduce((all, weight) => all + weight, 0);
  return { first, weights: weights.map((weight) => weight / sum) };
}

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

/** Milliseconds of work after which others get their turn. */
const turnMs = 8;

function pauses(): () => Promise<void> | undefined {
  let began = performance.now();
  return () => {
    if (performance.now() - began < turnMs) return undefined;
    return new Promise((resolve) => {
      setImmediate(() => {
        began = performance.now();
        resolve();
      });
    });
  };
}
