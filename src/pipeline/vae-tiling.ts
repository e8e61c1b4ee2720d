/**
 * Tile size and warning of `--vae-tiling`. The size is diffusers', from the VAE's config. The
 * warning states the measured difference from decoding without tiles.
 */
import type { Model } from "../models/model.ts";
import { tilingError } from "../settings/measured-errors.ts";

/** Tiles overlap by a quarter of their size, which must be whole rows and columns. */
const unit = 4;

/** Tile size in rows and columns of the latent: the VAE's `sample_size`, as in diffusers. */
export function tileLatent({ vae, vaeFactor }: Pick<Model, "vae" | "vaeFactor">): number {
  return Math.max(unit, Math.floor(vae.sampleSize / vaeFactor / unit) * unit);
}

/** The warning about `--vae-tiling` for an image of this size in pixels. */
export function tilingWarning(
  model: Pick<Model, "vae" | "vaeFactor">,
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
