/**
 * Latents that a request starts from instead of an image: those of a smaller one, or those that
 * another model has denoised up to some level. As diffusers' `image=latents`.
 */
import { badOption } from "../errors.ts";
import type { Model } from "../models/model.ts";
import type { Naming } from "../settings/values.ts";

export interface Latents {
  /** (image, channel, row, column) in the sampler's scale, as `wantLatents` gives them. */
  values: Float32Array;
  /** One image is that of all. */
  shape: readonly [images: number, channels: number, rows: number, columns: number];
  /**
   * Tensors of noise that each image's generator gave while they were made, which a run that goes
   * on leaves out (`GenerateResult.noiseCount`). Default: 0.
   */
  noiseCount?: number | undefined;
  /** Whether they are what an earlier pass of the request makes. */
  isFirstPass?: boolean | undefined;
}

interface LatentsRequest {
  latents?: Latents | undefined;
  denoisingStart?: number | undefined;
  image?: unknown;
  mask?: unknown;
  width?: number | undefined;
  height?: number | undefined;
}

/** Checks the latents of a request. Throws "bad-option". */
export function checkLatents(
  { latents, denoisingStart, image, mask, width, height }: LatentsRequest,
  { vae, vaeFactor }: Pick<Model, "vae" | "vaeFactor">,
  naming: Naming,
): { latents: Latents | null; width: number | undefined; height: number | undefined } {
  if (latents === undefined) {
    if (denoisingStart !== undefined) {
      throw badOption("denoisingStart needs latents, which an earlier part of the steps has made.");
    }
    return { latents: null, width, height };
  }
  if (denoisingStart !== undefined && !(denoisingStart > 0 && denoisingStart < 1)) {
    throw badOption(`denoisingStart must be above 0 and below 1, not ${denoisingStart}.`);
  }
  const [images, channels, rows, columns] = latents.shape;
  const count = images * channels * rows * columns;
  if (latents.values.length !== count || channels !== vae.latentChannels) {
    throw badOption(
      `latents must have ${vae.latentChannels} channels and as many values as their shape, not \
${latents.values.length} values of ${latents.shape.join("x")}.`,
    );
  }
  if (!latents.values.every(Number.isFinite)) {
    throw badOption("latents has numbers that are not finite.");
  }
  if (image !== undefined && !mask) {
    throw badOption(`latents and ${naming("image")} are both what the images start from: without \
${naming("mask")} only one of them can be.`);
  }
  const own = { width: columns * vaeFactor, height: rows * vaeFactor };
  if ((width ?? own.width) !== own.width || (height ?? own.height) !== own.height) {
    throw badOption(
      `latents are of an image of ${own.width}x${own.height}, but ${naming("width")} and \
${naming("height")} are ${width ?? own.width}x${height ?? own.height}.`,
    );
  }
  return { latents, ...own };
}

/** One image's latents for each of `count`. Throws "bad-option". */
export function checkLatentCount(latents: Latents | null, count: number): void {
  const images = latents?.shape[0] ?? 1;
  if (images === 1 || images === count) return;
  throw badOption(`latents are of ${images} images, but the request has ${count}.`);
}

/** Those of the images of a batch. */
export function latentsOf(
  { values, shape }: Latents,
  { first, last }: { first: number; last: number },
): Float32Array {
  const size = values.length / shape[0];
  if (shape[0] > 1) return values.subarray((first - 1) * size, last * size);
  const all = new Float32Array((last - first + 1) * size);
  for (let at = 0; at < all.length; at += size) all.set(values, at);
  return all;
}
