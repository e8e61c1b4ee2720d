/**
 * A mask at the size of the latent: 1 where it is new, 0 where the image is kept, as each tool
 * makes it of the mask's pixels.
 *
 * Sources: diffusers StableDiffusionXLInpaintPipeline.prepare_mask_latents; AUTOMATIC1111
 * modules/processing.py (init, inpainting_image_conditioning); ComfyUI comfy/utils.py
 * (reshape_mask), comfy/model_base.py (concat_cond).
 */
import type { Size } from "../image/encoder.ts";
import { pillowResized } from "../image/pillow-resize.ts";
import type { RawImage } from "../image/read.ts";
import type { Compat } from "../settings/compat.ts";
import { interpolated } from "./latent-resize.ts";

/** That by which latents are mixed. */
export function latentMask(mask: RawImage, to: Size, compat: Compat): Float32Array {
  if (compat === "comfyui") return bilinear(mask, to);
  return compat === "a1111" ? bicubic(mask, to) : nearest(mask, to);
}

/** That which a model for inpainting reads. */
export function conditionMask(mask: RawImage, to: Size, compat: Compat): Float32Array {
  if (compat !== "comfyui") return nearest(mask, to);
  // A half is rounded to even, which is 0.
  return bilinear(mask, to).map((share) => Number(share > 0.5));
}

// --- internal ---

/** Pixels from which on a mask counts as white. */
const greyMin = 128;

/** Of pixels that are white or black. */
function nearest({ pixels, ...from }: RawImage, to: Size): Float32Array {
  return Float32Array.from({ length: to.width * to.height }, (_, i) => {
    const row = Math.floor((Math.floor(i / to.width) * from.height) / to.height);
    const column = Math.floor(((i % to.width) * from.width) / to.width);
    return Number(pixels[row * from.width + column]! >= greyMin);
  });
}

/** Greys between, of the pixels in the middle of each position. */
function bilinear({ pixels, ...from }: RawImage, to: Size): Float32Array {
  const shares = Float32Array.from(pixels, (grey) => grey / 255);
  return interpolated(shares, from, to, "bilinear");
}

/** White or black, by the greys of all pixels around. */
function bicubic(mask: RawImage, to: Size): Float32Array {
  const { pixels } = pillowResized(mask, to, "bicubic");
  return Float32Array.from(pixels, (grey) => Number(grey >= greyMin));
}
