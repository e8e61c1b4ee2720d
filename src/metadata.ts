/**
 * How images say how they were made, and how that is read again.
 *
 * In reading order: `infotext.ts` (A1111's text), `record.ts` (this program's JSON), `hashes.ts`
 * (of the files that make an image), `describe.ts` (both texts of an image); `read.ts` (whose image
 * is it), `from-*.ts` (what each program writes), `recipe.ts` (the same in settings), `recall.ts`
 * (files and devices of this machine), `files.ts` (all of it for programs).
 */
export { textsOfImage } from "./metadata/describe.ts";
export { textsOfEnlarged } from "./metadata/enlarged.ts";
export {
  type DescribeOptions,
  defaultHashWaitMs,
  describeImage,
  encodeImage,
  type ImageFileOptions,
  type ImageMetadata,
  readMetadata,
  writeImage,
} from "./metadata/files.ts";
export { type FileHashes, startHashing } from "./metadata/hashes.ts";
export { type InspectedImage, inspectImage, textsInBytes } from "./metadata/read.ts";
export { type RecalledImage, recallImage } from "./metadata/recall.ts";
