/**
 * The images of a request in batches: consecutive images that are computed together.
 */
import type { ImageRange } from "./events.ts";

/** One image of a request. */
export interface PlannedImage {
  seed: bigint;
  prompt: string;
  /** null = none: zeros, or the empty prompt, as the model's config says. */
  negativePrompt: string | null;
  guidanceScale: number;
}

export interface Batch {
  images: PlannedImage[];
  /** Their places in the request. */
  range: ImageRange;
  /** Whether both guidance branches are computed. */
  guidance: boolean;
}

/**
 * Cuts `images` into batches of at most `batchSize`, in order. Images with guidance and without
 * are not computed together: an image is the same alone and in a batch.
 */
export function batchesOf(images: readonly PlannedImage[], batchSize: number): Batch[] {
  const batches: Batch[] = [];
  const count = images.length;
  for (const [index, image] of images.entries()) {
    const guidance = image.guidanceScale > 1;
    const last = batches.at(-1);
    if (last && last.images.length < batchSize && last.guidance === guidance) {
      last.images.push(image);
      last.range.last = index + 1;
      continue;
    }
    const range = { first: index + 1, last: index + 1, count };
    batches.push({ images: [image], range, guidance });
  }
  return batches;
}
