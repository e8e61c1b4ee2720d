/**
 * Resizes as Pillow does with its bicubic and its Lanczos filter, to the level: image encoders were
 * trained on what the first gives, A1111 uses both, and other libraries' filters differ where an
 * image gets smaller. Two passes over 8 bits with weights in fixed point, rows first.
 * Source: Pillow's src/libImaging/Resample.c.
 */
import type { Size } from "./encoder.ts";
import { channelsOf, type RawImage } from "./read.ts";

type PillowFilter = "bicubic" | "lanczos";

/** Of RGB or grey. */
export function pillowResized(
  image: RawImage,
  { width, height }: Size,
  filter: PillowFilter,
): RawImage {
  const wide = width === image.width ? image : resizedColumns(image, width, filters[filter]);
  return height === image.height ? wide : resizedRows(wide, height, filters[filter]);
}

// --- internal ---

const precisionBits = 22;

interface Filter {
  /** Places to each side that count. */
  support: number;
  weight(place: number): number;
}

const filters: Record<PillowFilter, Filter> = {
  bicubic: { support: 2, weight: cubic },
  lanczos: { support: 3, weight: lanczos },
};

/** What each output reads: `count` inputs from `first` on, and their weights. */
interface Taps {
  first: Int32Array;
  count: Int32Array;
  /** `stride` for each output. */
  weights: Int32Array;
  stride: number;
}

function tapsOf(sizeIn: number, sizeOut: number, { support, weight: weightAt }: Filter): Taps {
  const scale = sizeIn / sizeOut;
  const filterScale = Math.max(1, scale);
  const reach = support * filterScale;
  const stride = Math.ceil(reach) * 2 + 1;
  const taps: Taps = {
    first: new Int32Array(sizeOut),
    count: new Int32Array(sizeOut),
    weights: new Int32Array(sizeOut * stride),
    stride,
  };
  const exact = new Float64Array(stride);
  for (let out = 0; out < sizeOut; out++) {
    const center = (out + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - reach + 0.5));
    const count = Math.min(sizeIn, Math.trunc(center + reach + 0.5)) - first;
    let sum = 0;
    for (let i = 0; i < count; i++) {
      exact[i] = weightAt((i + first - center + 0.5) * (1 / filterScale));
      sum += exact[i]!;
    }
    taps.first[out] = first;
    taps.count[out] = count;
    for (let i = 0; i < count; i++) {
      const weight = (sum === 0 ? exact[i]! : exact[i]! / sum) * (1 << precisionBits);
      taps.weights[out * stride + i] = Math.trunc(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
  }
  return taps;
}

function cubic(place: number): number {
  const a = -0.5;
  const x = Math.abs(place);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

function lanczos(place: number): number {
  const sinc = (x: number) => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));
  return -3 <= place && place < 3 ? sinc(place) * sinc(place / 3) : 0;
}

function resizedColumns(image: RawImage, width: number, filter: Filter): RawImage {
  const { height } = image;
  const { first, count, weights, stride } = tapsOf(image.width, width, filter);
  const channels = channelsOf(image);
  const pixels = new Uint8Array(width * height * channels);
  let to = 0;
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++, to += channels) {
      const start = (row * image.width + first[column]!) * channels;
      const tapEnd = column * stride + count[column]!;
      for (let c = 0; c < channels; c++) {
        let sum = half;
        for (let tap = column * stride, at = start + c; tap < tapEnd; tap++, at += channels) {
          sum += image.pixels[at]! * weights[tap]!;
        }
        pixels[to + c] = level(sum);
      }
    }
  }
  return { pixels, width, height };
}

function resizedRows(image: RawImage, height: number, filter: Filter): RawImage {
  const { width } = image;
  const { first, count, weights, stride } = tapsOf(image.height, height, filter);
  const rowBytes = width * channelsOf(image);
  const pixels = new Uint8Array(height * rowBytes);
  const sums = new Int32Array(rowBytes);
  for (let row = 0; row < height; row++) {
    sums.fill(half);
    for (let tap = 0; tap < count[row]!; tap++) {
      const from = (first[row]! + tap) * rowBytes;
      const weight = weights[row * stride + tap]!;
      for (let i = 0; i < rowBytes; i++) sums[i]! += image.pixels[from + i]! * weight;
    }
    for (let i = 0; i < rowBytes; i++) pixels[row * rowBytes + i] = level(sums[i]!);
  }
  return { pixels, width, height };
}

/** Of one, in fixed point. */
const half = 1 << (precisionBits - 1);

function level(sum: number): number {
  return Math.min(255, Math.max(0, sum >> precisionBits));
}
