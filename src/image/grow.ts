/**
 * Enlarges a mask by a square around each of its pixels, as ComfyUI's `grow_mask_by` does.
 * Source: ComfyUI, nodes.py (VAEEncodeForInpaint).
 */
import type { RawImage } from "./read.ts";

/** The mask, rounded, with what is near it: a square of `count` pixels around each of its own. */
export function grown(mask: RawImage, count: number): RawImage {
  if (count === 0) return mask;
  const { pixels, width, height } = mask;
  const across = new Uint8Array(pixels.length);
  const both = new Uint8Array(pixels.length);
  for (let at = 0; at < pixels.length; at += width) {
    spread(pixels.subarray(at, at + width), across.subarray(at, at + width), 1, count);
  }
  for (let column = 0; column < width; column++) {
    spread(across.subarray(column), both.subarray(column), width, count);
  }
  return { pixels: both, width, height };
}

// --- internal ---

/** Pixels from which on a mask counts as white. */
const greyMin = 128;

/** Along a line whose values are `stride` apart. */
function spread(from: Uint8Array, to: Uint8Array, stride: number, count: number): void {
  const before = Math.max(0, Math.ceil((count - 1) / 2));
  const after = Math.max(0, count - 1 - before);
  let last = Number.NEGATIVE_INFINITY;
  for (let place = -after; place * stride < from.length; place++) {
    if ((from[(place + after) * stride] ?? 0) >= greyMin) last = place + after;
    if (place >= 0 && last >= place - before) to[place * stride] = 255;
  }
}
