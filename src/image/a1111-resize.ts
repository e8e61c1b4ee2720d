/**
 * Brings images and masks to a size as A1111 does, to the level, with Pillow's Lanczos filter.
 * Source: AUTOMATIC1111 modules/images.py (resize_image).
 */
import type { Size } from "./encoder.ts";
import { pillowResized } from "./pillow-resize.ts";
import { channelsOf, type RawImage } from "./read.ts";
import { cropped, extended, type ResizeMode, type Sides } from "./transform.ts";

/** "Just resize", "crop and resize" and "resize and fill". */
export function a1111Resized(image: RawImage, size: Size, mode: ResizeMode): RawImage {
  const { width, height } = size;
  if (mode === "stretch") return pillowResized(image, size, "lanczos");
  const isWide = width / height > image.width / image.height;
  // One side is that of the size, the other what the image's shape makes of it.
  const keepsWidth = mode === "cover" ? isWide : !isWide;
  const inner = keepsWidth
    ? { width, height: Math.floor((image.height * width) / image.width) }
    : { width: Math.floor((image.width * height) / image.height), height };
  const resized = pillowResized(image, inner, "lanczos");
  const left = (width >> 1) - (inner.width >> 1);
  const top = (height >> 1) - (inner.height >> 1);
  if (mode === "cover") return cropped(resized, { left: -left, top: -top, width, height });
  const right = width - inner.width - left;
  const bottom = height - inner.height - top;
  const isDown = inner.width === width;
  if (isDown && top === 0) return resized;
  const sides = isDown
    ? { left, right, top: top - 1, bottom: bottom - 1 }
    : { left: left - 1, right: right - 1, top, bottom };
  const around = withEdges(resized, isDown);
  // Of an odd number of missing pixels the last side has one fewer, which may be none.
  const whole = { left: 0, top: 0, width, height };
  return cropped(extended(around, positive(sides)), whole);
}

// --- internal ---

function positive({ left, top, right, bottom }: Sides): Sides {
  const own = (count: number) => Math.max(0, count);
  return { left: own(left), top: own(top), right: own(right), bottom: own(bottom) };
}

const precisionBits = 22;
/** Of the last pixel and of the one before: Pillow's bicubic filter at the image's very edge. */
const weights = [1.125, -0.125].map((weight) => Math.round(weight * 2 ** precisionBits));

/** With a row above and below, or a column at each side, of the colours with which A1111 fills. */
function withEdges(image: RawImage, isDown: boolean): RawImage {
  const one = isDown
    ? { left: 0, top: 1, right: 0, bottom: 1 }
    : { left: 1, top: 0, right: 1, bottom: 0 };
  const out = extended(image, one);
  const channels = channelsOf(image);
  const row = out.width * channels;
  const [step, across] = isDown ? [row, channels] : [channels, row];
  const [last, count] = isDown ? [out.height - 1, out.width] : [out.width - 1, out.height];
  for (let i = 0; i < count; i++) {
    for (let c = 0; c < channels; c++) {
      const first = i * across + c;
      out.pixels[first] = beyond(out.pixels, first + step, step);
      const end = first + last * step;
      out.pixels[end] = beyond(out.pixels, end - step, -step);
    }
  }
  return out;
}

function beyond(pixels: Uint8Array, at: number, inwards: number): number {
  const sum = pixels[at]! * weights[0]! + pixels[at + inwards]! * weights[1]!;
  return Math.min(255, Math.max(0, (sum + 2 ** (precisionBits - 1)) >> precisionBits));
}
