/**
 * What an image was made with: opaque, so that it does not fill the screen where an image is
 * printed.
 */
import type { PreparedPipeline } from "./prepare.ts";
import type { PlannedRequest } from "./request.ts";

interface Parts {
  prepared: PreparedPipeline;
  /** Of the image's own request. */
  plan: PlannedRequest;
}

export class ImageOrigin {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  parts(): Parts {
    return this.#parts;
  }
}
