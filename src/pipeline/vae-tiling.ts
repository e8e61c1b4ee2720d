/**
 * Which tiles `--vae-tiling` decodes in, and what its user is told. The size is diffusers' own,
 * from the VAE's config; how far tiles are from the whole decode is measured, never assumed.
 */
import type { ModelFolder } from "../models/folder.ts";
import { tilingError } from "../settings/measured-errors.ts";

/** A quarter of each tile is shared with the next, in whole rows and columns of the latent. */
const unit = 4;

/** Rows and columns of the latent in a tile: `sample_size` of the VAE's config, as in diffusers. */
export function tileLatent({ vae, vaeFactor }: Pick<ModelFolder, "vae" | "vaeFactor">): number {
  return Math.max(unit, Math.floor(vae.sampleSize / vaeFactor / unit) * unit);
}

/** What the user of `--vae-tiling` should know about a image of so many pixels. */
export function tilingWarning(
  model: Pick<ModelFolder, "vae" | "vaeFactor">,
  width: number,
  height: number,
  name = "--vae-tiling",
): string {
  const side = tileLatent(model) * model.vaeFactor;
  if (width <= side && height <= side) {
    return `${name} changes nothing at ${width}x${height}: one tile is ${side}x${side}.`;
  }
  return `Decoding in tiles of ${side}x${side}, which is not quite the whole decode: \
${tilingError} (bun run bench tiling measures it).`;
}
