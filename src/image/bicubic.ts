/**
 * Resizes as PIL does with its bicubic filter, to the level: image encoders were trained on what it
 * gives, and other libraries' cubic filters differ where an image gets smaller. Two passes over 8
 * bits with weights in fixed point, rows first.
 * Source: Pillow's src/libImaging/Resample.c.
 */
import type { Size } from "./encoder.ts";
import type { RawImage } from "./read.ts";

/** Of RGB. */
export function resizedBicubic(image: RawImage, { width, height }: Size): RawImage {
  const wide = width === image.width ? image : resizedColumns(image, width);
  return height === image.height ? wide : resizedRows(wide, height);
}

// --- internal ---

const channels = 3;
const precisionBits = 22;
const support = 2;

/** What each output reads: `count` inputs from `first` on, and their weights. */
interface Taps {
  first: Int32Array;
  count: Int32Array;
  /** `stride` for each output. */
  weights: Int32Array;
  stride: number;
}

function tapsOf(sizeIn: number, sizeOut: number): Taps {
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
      exact[i] = cubic((i + first - center + 0.5) * (1 / filterScale));
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

function resizedColumns(image: RawImage, width: number): RawImage {
  const { height } = image;
  const { first, count, weights, stride } = tapsOf(image.width, width);
  const pixels = new Uint8Array(width * height * channels);
  let to = 0;
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++, to += channels) {
      let at = (row * image.width + first[column]!) * channels;
      let [red, green, blue] = [half, half, half];
      const tapEnd = column * stride + count[column]!;
      for (let tap = column * stride; tap < tapEnd; tap++, at += channels) {
        const weight = weights[tap]!;
        red += image.pixels[at]! * weight;
        green += image.pixels[at + 1]! * weight;
        blue += image.pixels[at + 2]! * weight;
      }
      pixels[to] = level(red);
      pixels[to + 1] = level(green);
      pixels[to + 2] = level(blue);
    }
  }
  return { pixels, width, height };
}

function resizedRows(image: RawImage, height: number): RawImage {
  const { width } = image;
  const { first, count, weights, stride } = tapsOf(image.height, height);
  const rowBytes = width * channels;
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
