/**
 * How often an upscaler enlarges an image on the way to a size, as A1111 does.
 */
import { badOption } from "../errors.ts";
import type { Size } from "../image/encoder.ts";
import { upscaleTileMax, upscaleTileMin } from "../native/abi.ts";
import type { UpscalerNetwork } from "../networks/network.ts";

/** Pixels of a side of a tile. */
export const tileSizeDefault = 256;

const timesMax = 3;

/** An image that a network enlarges, in tiles of so many pixels a side. */
export interface FirstUpscale extends Size {
  network: UpscalerNetwork;
  tileSize: number;
}

/** `value`, or the default. Throws "bad-option". */
export function tileSizeOf(value: number = tileSizeDefault): number {
  if (Number.isInteger(value) && value >= upscaleTileMin && value <= upscaleTileMax) return value;
  throw badOption(
    `tileSize must be a whole number from ${upscaleTileMin} to ${upscaleTileMax}, not ${value}.`,
  );
}

/** The sizes in pixels of what the network enlarges, one after the other. */
export function enlargements(from: Size, to: Size, { scale }: UpscalerNetwork): Size[] {
  const sizes: Size[] = [];
  let { width, height } = from;
  while (sizes.length < timesMax) {
    const isLarge = width >= to.width && height >= to.height;
    // One that does not enlarge is for what it does to the image.
    if (sizes.length > 0 && (isLarge || scale === 1)) break;
    sizes.push({ width, height });
    width *= scale;
    height *= scale;
  }
  return sizes;
}
