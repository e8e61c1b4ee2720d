/**
 * Blurs as Pillow's GaussianBlur does, to the level: three passes of a box of a width that need not
 * be whole, across and then down, in fixed point.
 * Source: Pillow's src/libImaging/BoxBlur.c.
 */
import { setImmediate } from "node:timers/promises";
import type { Size } from "./encoder.ts";

/** Interleaved channels of 8 bits; the standard deviation is in pixels. */
export async function pillowBlur(
  pixels: Uint8Array,
  { width, height }: Size,
  { channels, deviation }: { channels: number; deviation: number },
): Promise<Uint8Array> {
  const box = boxOf(deviation);
  const out = pixels.slice();
  const row = width * channels;
  const line = new Uint8Array(Math.max(width, height) + 2 * (box.radius + 1));
  const across = { stride: channels, count: width };
  const down = { stride: row, count: height };
  for (let pass = 0; pass < 2 * passCount; pass++) {
    // Others may have their turn between the passes of a large image.
    await setImmediate();
    for (let i = 0; pass >= passCount && i < row; i++) {
      blurLine(out, line, { first: i, ...down }, box);
    }
    for (let i = 0; pass < passCount && i < height * channels; i++) {
      const first = Math.floor(i / channels) * row + (i % channels);
      blurLine(out, line, { first, ...across }, box);
    }
  }
  return out;
}

// --- internal ---

const f32 = Math.fround;
const passCount = 3;
const one = 2 ** 24;

interface Line {
  first: number;
  stride: number;
  count: number;
}

interface Box {
  /** Whole pixels to each side. */
  radius: number;
  /** Of these, and of the pixel beyond on each side. */
  weight: number;
  edgeWeight: number;
}

/** Gwosdek and others, Theoretical foundations of Gaussian convolution by box filtering. */
function boxOf(deviation: number): Box {
  const variance = f32(f32(deviation * deviation) / passCount);
  const length = f32(Math.sqrt(12 * variance + 1));
  const whole = f32(Math.floor((length - 1) / 2));
  const part = f32(
    f32((2 * whole + 1) * (whole * (whole + 1) - 3 * variance)) /
      f32(6 * (variance - (whole + 1) * (whole + 1))),
  );
  const size = f32(whole + part);
  const radius = Math.trunc(size);
  const weight = Math.trunc(f32(one / f32(f32(size * 2) + 1)));
  return { radius, weight, edgeWeight: Math.trunc((one - (2 * radius + 1) * weight) / 2) };
}

/** In place, by `line`; what is beyond the ends is as the pixels there. */
function blurLine(pixels: Uint8Array, line: Uint8Array, at: Line, box: Box): void {
  const { first, stride, count } = at;
  const { radius, weight, edgeWeight } = box;
  // From `reach` before the first pixel to `reach` behind the last one.
  const reach = radius + 1;
  line.fill(pixels[first]!, 0, reach);
  for (let i = 0, from = first; i < count; i++, from += stride) line[reach + i] = pixels[from]!;
  line.fill(line[reach + count - 1]!, reach + count, count + 2 * reach);
  let sum = 0;
  for (let i = 0; i < 2 * radius + 1; i++) sum += line[i]!;
  for (let i = 0, to = first; i < count; i++, to += stride) {
    const left = line[i]!;
    const right = line[i + 2 * reach]!;
    sum += line[i + 2 * radius + 1]! - left;
    const bulk = sum * weight + (left + right) * edgeWeight + one / 2;
    pixels[to] = (bulk / one) | 0;
  }
}
