/**
 * Images and models as OpenAI's API answers them.
 * Source: the types of OpenAI's npm package, resources/images and resources/models.
 */
import type { Size } from "../../../image/encoder.ts";
import type { JobView } from "../../jobs/types.ts";
import type { ListedModel } from "../listed-names.ts";
import type { AskedImages } from "./request.ts";

/** Nothing is billed: the fields are there for clients that read them. */
export const usage = {
  ...{ input_tokens: 0, output_tokens: 0, total_tokens: 0 },
  input_tokens_details: { image_tokens: 0, text_tokens: 0 },
};

/** What answers and events of a job share. */
export function describedImage(asked: AskedImages, image: Size) {
  return {
    background: "opaque",
    output_format: asked.outputFormat,
    quality: asked.quality,
    size: `${image.width}x${image.height}`,
  };
}

/** The answer to a request without `stream`; `data` holds the images in order. */
export function imagesAnswer(
  job: JobView,
  asked: AskedImages,
  data: readonly ({ b64_json: string } | { url: string })[],
) {
  const [first = { width: 0, height: 0 }] = job.images;
  return {
    created: seconds(job.endedAt ?? job.createdAt),
    ...describedImage(asked, first),
    data,
    usage,
  };
}

export function modelAnswer({ id }: ListedModel) {
  // Files have no date that means anything to clients.
  return { id, object: "model", created: 0, owned_by: "basedxl" };
}

export function seconds(milliseconds: number): number {
  return Math.floor(milliseconds / 1000);
}
