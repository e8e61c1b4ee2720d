/**
 * What programs import: the pipeline, and images with their parameters.
 */

export type { ImageTexts } from "./image.ts";
export {
  type DescribeOptions,
  describeImage,
  encodeImage,
  type ImageFileOptions,
  type ImageMetadata,
  readMetadata,
  writeImage,
} from "./metadata.ts";
export * from "./pipeline.ts";
