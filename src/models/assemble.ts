/**
 * A model of its parts, whether these come from a folder or from one file: what follows from their
 * configurations is added here.
 */
import { kindOf } from "./kind.ts";
import type { Model } from "./model.ts";

type Derived = "kind" | "vaeFactor" | "sizeMultiple" | "nativeSize";
export type ModelParts = Omit<Model, Derived>;

export function assembleModel(parts: ModelParts): Model {
  const { unet } = parts;
  const { vaeFactor, sizeMultiple } = sizesOf(parts);
  // A default size that the model cannot generate would be refused at once.
  const pixels = Math.ceil((unet.sampleSize * vaeFactor) / sizeMultiple) * sizeMultiple;
  const nativeSize = { width: pixels, height: pixels };
  return { ...parts, kind: kindOf(parts), vaeFactor, sizeMultiple, nativeSize };
}

/** Pixels per latent, and what widths and heights are multiples of. */
export function sizesOf({ unet, vae }: Pick<ModelParts, "unet" | "vae">) {
  const vaeFactor = 2 ** (vae.blockOutChannels.length - 1);
  return { vaeFactor, sizeMultiple: vaeFactor * 2 ** (unet.blockOutChannels.length - 1) };
}
