/**
 * The part of an image that is computed for a mask.
 */
import type { Size } from "../image/encoder.ts";
import type { Area } from "../image/transform.ts";

interface Around {
  /** The smallest area of the mask. */
  bounds: Area;
  padding: number;
  /** Width by height of what is computed. */
  shape: number;
}

/** `bounds` with `padding`, enlarged to the shape of what is computed as far as the image goes. */
export function maskedArea({ bounds, padding, shape }: Around, image: Size): Area {
  const [left, width] = span(bounds.left - padding, bounds.width + 2 * padding, image.width);
  const [top, height] = span(bounds.top - padding, bounds.height + 2 * padding, image.height);
  const wide = Math.max(width, Math.round(height * shape));
  const high = Math.max(height, Math.round(width / shape));
  const [left2, width2] = span(left - ((wide - width) >> 1), wide, image.width, true);
  const [top2, height2] = span(top - ((high - height) >> 1), high, image.height, true);
  return { left: left2, top: top2, width: width2, height: height2 };
}

/** As A1111 has it. Source: AUTOMATIC1111 modules/masking.py (expand_crop_region). */
export function a1111MaskedArea({ bounds, padding, shape }: Around, image: Size): Area {
  const [left, width] = span(bounds.left - padding, bounds.width + 2 * padding, image.width);
  const [top, height] = span(bounds.top - padding, bounds.height + 2 * padding, image.height);
  if (width / height > shape) {
    const [first, count] = widened(top, height, Math.trunc(width / shape), image.height);
    return { left, width, top: first, height: count };
  }
  const [first, count] = widened(left, width, Math.trunc(height * shape), image.width);
  return { left: first, width: count, top, height };
}

// --- internal ---

/** To `wanted` on both sides, moved inside and then cut. */
function widened(first: number, count: number, wanted: number, size: number): [number, number] {
  const more = wanted - count;
  let start = first - Math.floor(more / 2);
  let end = first + count + more - Math.floor(more / 2);
  if (end >= size) {
    start -= end - size;
    end = size;
  }
  if (start < 0) {
    end -= start;
    start = 0;
  }
  return [start, Math.min(end, size) - start];
}

/** Inside of `size`: cut, or moved where there is room. */
function span(first: number, count: number, size: number, moves = false): [number, number] {
  if (!moves) {
    const start = Math.max(0, first);
    return [start, Math.min(size, first + count) - start];
  }
  const length = Math.min(size, count);
  return [Math.min(Math.max(0, first), size - length), length];
}
