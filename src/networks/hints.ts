/**
 * Makes the hint of an image: its edges, its brightness, or itself without details.
 */
import { loadSharp, type RawImage } from "../image/read.ts";
import { resized } from "../image/transform.ts";
import type { ControlPreprocess } from "../settings/control.ts";
import { canny } from "./canny.ts";

/** RGB of the image's size. `none` gives the image itself. */
export async function makeHint(image: RawImage, how: ControlPreprocess): Promise<RawImage> {
  switch (how) {
    case "none":
      return image;
    case "canny":
      return ofGrey(canny(grey(image), cannyThresholds), image);
    case "grey":
      return ofGrey(grey(image).pixels, image);
    case "blur":
      return await blurred(image);
    case "tile":
      return await smaller(image);
  }
}

// --- internal ---

/** Those of diffusers' and most tools' examples. */
const cannyThresholds = { low: 100, high: 200 };
/** Of the shorter side: what a blur of the model's training takes away. */
const blurShare = 1 / 64;
/** As A1111's tile_resample at its default, once more. */
const tileFactor = 4;

/** As OpenCV's cvtColor: Rec. 601 in fixed point. */
function grey({ pixels, width, height }: RawImage): RawImage {
  const out = new Uint8Array(width * height);
  for (let i = 0; i < out.length; i++) {
    const [r, g, b] = [pixels[3 * i]!, pixels[3 * i + 1]!, pixels[3 * i + 2]!];
    out[i] = (9798 * r + 19235 * g + 3735 * b + 16384) >> 15;
  }
  return { pixels: out, width, height };
}

function ofGrey(values: Uint8Array, { width, height }: RawImage): RawImage {
  const pixels = new Uint8Array(3 * values.length);
  for (const [i, value] of values.entries()) pixels.fill(value, 3 * i, 3 * i + 3);
  return { pixels, width, height };
}

async function blurred({ pixels, width, height }: RawImage): Promise<RawImage> {
  const sharp = await loadSharp();
  const sigma = Math.max(0.5, Math.min(width, height) * blurShare);
  const raw = { width, height, channels: 3 as const };
  const data = await sharp(pixels, { raw }).blur(sigma).raw().toBuffer();
  return { pixels: new Uint8Array(data.buffer, data.byteOffset, data.length), width, height };
}

async function smaller(image: RawImage): Promise<RawImage> {
  const { width, height } = image;
  const small = {
    width: Math.max(1, Math.round(width / tileFactor)),
    height: Math.max(1, Math.round(height / tileFactor)),
  };
  return await resized(await resized(image, small, "stretch"), image, "stretch");
}
