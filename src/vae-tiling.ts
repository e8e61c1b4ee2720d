/**
 * Which tiles `--vae-tiling` decodes in, and what a user should know of them. The size is
 * diffusers' own, from the VAE's config; what tiles change is measured, never assumed.
 */
import type { ModelFolder } from "./models/folder.ts";

/** A quarter of each tile is shared with the next, in whole rows and columns of the latent. */
const unit = 4;

/** Rows and columns of the latent in one tile: `sample_size` of the VAE's config, as in diffusers. */
export function tileLatent({ vae, vaeFactor }: Pick<ModelFolder, "vae" | "vaeFactor">): number {
  return Math.max(unit, Math.floor(vae.sampleSize / vaeFactor / unit) * unit);
}
