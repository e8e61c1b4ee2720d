/**
 * Cuts, enlarges and mixes pixels of an image that generation starts from. What has the right size
 * already keeps its bits.
 */
import type { Size } from "./encoder.ts";
import { channelsOf, loadSharp, type RawImage } from "./read.ts";

/** Part of an image, in pixels. */
export interface Area extends Size {
  left: number;
  top: number;
}

export type ResizeMode = "cover" | "fit" | "stretch";

/** Pixels on each side. */
export interface Sides {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

export function cropped(image: RawImage, area: Area): RawImage {
  const { width, height } = area;
  if (width === image.width && height === image.height) return image;
  const channels = channelsOf(image);
  const pixels = new Uint8Array(width * height * channels);
  for (let row = 0; row < height; row++) {
    const from = ((area.top + row) * image.width + area.left) * channels;
    pixels.set(image.pixels.subarray(from, from + width * channels), row * width * channels);
  }
  return { pixels, width, height };
}

export async function resized(image: RawImage, size: Size, mode: ResizeMode): Promise<RawImage> {
  if (image.width === size.width && image.height === size.height) return image;
  if (mode !== "fit") return await scaled(image, size, mode === "cover" ? "cover" : "fill");
  const factor = Math.min(size.width / image.width, size.height / image.height);
  const inner = {
    width: Math.min(size.width, Math.max(1, Math.round(image.width * factor))),
    height: Math.min(size.height, Math.max(1, Math.round(image.height * factor))),
  };
  const left = (size.width - inner.width) >> 1;
  const top = (size.height - inner.height) >> 1;
  return extended(await scaled(image, inner, "fill"), {
    left,
    top,
    right: size.width - inner.width - left,
    bottom: size.height - inner.height - top,
  });
}

/** New pixels have the colour of the nearest one, or `value`. */
export function extended(image: RawImage, sides: Sides, value?: number): RawImage {
  const channels = channelsOf(image);
  const width = image.width + sides.left + sides.right;
  const height = image.height + sides.top + sides.bottom;
  const pixels = new Uint8Array(width * height * channels);
  const nearest = (place: number, count: number) => Math.min(count - 1, Math.max(0, place));
  for (let row = 0; row < height; row++) {
    const fromRow = nearest(row - sides.top, image.height);
    for (let column = 0; column < width; column++) {
      const fromColumn = nearest(column - sides.left, image.width);
      const isNew = fromRow !== row - sides.top || fromColumn !== column - sides.left;
      const from = (fromRow * image.width + fromColumn) * channels;
      const to = (row * width + column) * channels;
      for (let c = 0; c < channels; c++) {
        pixels[to + c] = isNew && value !== undefined ? value : image.pixels[from + c]!;
      }
    }
  }
  return { pixels, width, height };
}

export function inverted({ pixels, ...size }: RawImage): RawImage {
  return { ...size, pixels: pixels.map((value) => 255 - value) };
}

/** By a Gauss function of this standard deviation, in pixels. */
export async function blurred(image: RawImage, deviation: number): Promise<RawImage> {
  if (deviation === 0) return image;
  const sharp = await loadSharp();
  const blurring = sharp(image.pixels, rawOf(image)).blur({ sigma: deviation, precision: "float" });
  return await pixelsOf(blurring, channelsOf(image));
}

/** The smallest area of all pixels above 0; null where there are none. */
export function boundsOf({ pixels, width, height }: RawImage): Area | null {
  let [left, top, right, bottom] = [width, height, -1, -1];
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      if (pixels[row * width + column] === 0) continue;
      left = Math.min(left, column);
      right = Math.max(right, column);
      top = Math.min(top, row);
      bottom = row;
    }
  }
  return right < 0 ? null : { left, top, width: right - left + 1, height: bottom - top + 1 };
}

/** `image` with the pixels of `part` in `area` by their share in `mask`; at 0 they are the old. */
export function pasted(image: RawImage, part: RawImage, mask: RawImage, area: Area): RawImage {
  const pixels = image.pixels.slice();
  for (let row = 0; row < area.height; row++) {
    for (let column = 0; column < area.width; column++) {
      const at = row * area.width + column;
      const share = mask.pixels[at]!;
      if (share === 0) continue;
      const to = 3 * ((area.top + row) * image.width + area.left + column);
      for (let c = 0; c < 3; c++) {
        const sum = share * part.pixels[3 * at + c]! + (255 - share) * pixels[to + c]!;
        pixels[to + c] = Math.round(sum / 255);
      }
    }
  }
  return { ...image, pixels };
}

// --- internal ---

function rawOf(image: RawImage) {
  const { width, height } = image;
  return { raw: { width, height, channels: channelsOf(image) }, limitInputPixels: false } as const;
}

async function scaled(image: RawImage, size: Size, fit: "cover" | "fill"): Promise<RawImage> {
  const sharp = await loadSharp();
  const resizing = sharp(image.pixels, rawOf(image)).resize({ ...size, fit, kernel: "lanczos3" });
  return await pixelsOf(resizing, channelsOf(image));
}

async function pixelsOf(image: import("sharp").Sharp, channels: 1 | 3): Promise<RawImage> {
  const spaced = image.toColourspace(channels === 1 ? "b-w" : "srgb");
  const { data, info } = await spaced.raw().toBuffer({ resolveWithObject: true });
  const { width, height } = info;
  return { width, height, pixels: new Uint8Array(data.buffer, data.byteOffset, data.length) };
}
