/**
 * An image as CLIP's image encoders read it, as transformers' CLIPImageProcessor makes it: the
 * shorter side resized to the encoder's, the middle cut out, colours normalised.
 */
import { pillowResized } from "../image/pillow-resize.ts";
import type { RawImage } from "../image/read.ts";
import { cropped } from "../image/transform.ts";
import type { ClipVisionConfig } from "./network.ts";

/**
 * The patches of an image row by row, of each the values of one channel after the other: so the
 * encoder's first convolution, whose stride is its size, is a product with its own weights.
 */
export function clipPatches(
  image: RawImage,
  { imageSize, patchSize }: Pick<ClipVisionConfig, "imageSize" | "patchSize">,
): Float32Array {
  const { pixels } = croppedMiddle(image, imageSize);
  const values = new Float32Array(pixels.length);
  const side = imageSize / patchSize;
  let at = 0;
  for (let patch = 0; patch < side * side; patch += 1) {
    const top = Math.floor(patch / side) * patchSize;
    const left = (patch % side) * patchSize;
    for (let channel = 0; channel < 3; channel += 1) {
      for (let i = 0; i < patchSize * patchSize; i += 1, at += 1) {
        const row = top + Math.floor(i / patchSize);
        const column = left + (i % patchSize);
        values[at] = normalised(pixels[3 * (row * imageSize + column) + channel]!, channel);
      }
    }
  }
  return values;
}

// --- internal ---

/** transformers: OPENAI_CLIP_MEAN and OPENAI_CLIP_STD, in f32 as it computes with them. */
const means = new Float32Array([0.48145466, 0.4578275, 0.40821073]);
const deviations = new Float32Array([0.26862954, 0.26130258, 0.27577711]);

function normalised(value: number, channel: number): number {
  const scaled = Math.fround(value * (1 / 255));
  return Math.fround(Math.fround(scaled - means[channel]!) / deviations[channel]!);
}

function croppedMiddle(image: RawImage, side: number): RawImage {
  const { width, height } = image;
  const long = Math.trunc((side * Math.max(width, height)) / Math.min(width, height));
  const size = width <= height ? { width: side, height: long } : { width: long, height: side };
  const resized = pillowResized(image, size, "bicubic");
  const left = Math.floor((size.width - side) / 2);
  const top = Math.floor((size.height - side) / 2);
  return cropped(resized, { left, top, width: side, height: side });
}
