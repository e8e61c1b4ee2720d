/**
 * What a model is for, by the shape of its UNet. Refiners and inpainting models need an image to
 * start from.
 */
import { BasedXLError, escaped } from "../errors.ts";
import type { ClipConfig, UnetConfig, VaeConfig } from "./config.ts";

export type ModelKind = "base" | "refiner" | "inpainting";

interface Shapes {
  unet: Pick<UnetConfig, "inChannels" | "additionInputDim" | "additionTimeEmbedDim">;
  clip2: Pick<ClipConfig, "projectionSize">;
  vae: Pick<VaeConfig, "latentChannels">;
}

/** Numbers beside the pooled prompt: 6 sizes, or 4 sizes and an aesthetic score in refiners. */
export function timeIdCount({ unet, clip2 }: Omit<Shapes, "vae">): number {
  return (unet.additionInputDim - clip2.projectionSize) / unet.additionTimeEmbedDim;
}

/** An inpainting UNet reads latent, masked latent and mask. */
export function kindOf(shapes: Shapes): ModelKind {
  if (timeIdCount(shapes) === 5) return "refiner";
  return shapes.unet.inChannels === 2 * shapes.vae.latentChannels + 1 ? "inpainting" : "base";
}

/**
 * Throws "bad-model" for a model that cannot make an image of what is there: text, or an image or
 * latents to start from too, which may have a mask.
 */
export function checkHasInput(
  { name, kind }: { name: string; kind: ModelKind },
  input: { mask: unknown } | null,
): void {
  const hasMask = input !== null && input.mask !== null;
  if (kind === "base" || (kind === "inpainting" ? hasMask : input !== null)) return;
  const what =
    kind === "refiner"
      ? "a refiner, which finishes the images of a base model"
      : "for inpainting, which fills a masked part of an image";
  const without = input === null ? "from text alone" : "without a mask";
  const remedy = kind === "refiner" ? ", or give an image" : ", or an image and its mask";
  throw new BasedXLError(
    "bad-model",
    `The model ${escaped(name, 60)} is ${what}: ${without} it cannot generate; name a base ` +
      `model${remedy}.`,
  );
}
