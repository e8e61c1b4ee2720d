/**
 * Texts in image files: text chunks in PNG, EXIF in the others. Writing leaves the encoded pixels
 * as they are; reading looks at the parts that hold texts alone, and trusts nothing.
 */
import { BasedXLError, escaped } from "../errors.ts";
import { isAvif, readAvifExif, withAvifExif } from "./avif-texts.ts";
import type { ImageFormat, Size } from "./encoder.ts";
import { decodeExif, encodeExif, type ImageTexts } from "./exif.ts";
import { FileSlices } from "./file-slices.ts";
import { isJpeg, readJpegExif, withJpegExif } from "./jpeg-texts.ts";
import { exifKeyword, isPng, readPngTexts, withPngTexts } from "./png-texts.ts";
import { isWebp, readWebpExif, withWebpExif } from "./webp-texts.ts";

export interface FoundTexts {
  format: ImageFormat;
  /** Text chunks by keyword;. */
  chunks: ReadonlyMap<string, string>;
  /** Texts of EXIF by tag, see `exif.ts`. */
  exif: ReadonlyMap<string, string>;
  /** What is left out, as in "its zTXt chunk is damaged". */
  problems: readonly string[];
}

/** The keywords of text chunks that this program writes. */
export const chunkNames = { parameters: "parameters", own: "basedxl" } as const;

/** The encoded image with the texts; null where they do not fit. */
export function withTexts(
  format: ImageFormat,
  bytes: Uint8Array,
  texts: ImageTexts,
  size: Size,
): Uint8Array | null {
  if (format === "png") {
    return withPngTexts(bytes, [
      [chunkNames.parameters, texts.parameters],
      ...(texts.own === undefined ? [] : [[chunkNames.own, texts.own] satisfies [string, string]]),
    ]);
  }
  const exif = encodeExif(texts);
  if (format === "jpeg") return withJpegExif(bytes, exif);
  return format === "webp" ? withWebpExif(bytes, exif, size) : withAvifExif(bytes, exif);
}

/** The texts of the image at `path`. Throws "io" where it cannot be read or is no image. */
export function readTexts(path: string): FoundTexts {
  using file = FileSlices.open(path);
  return textsIn(file, escaped(path, 300));
}

/** The same of an image's bytes. */
export function readTextsOf(bytes: Uint8Array): FoundTexts {
  return textsIn(FileSlices.of(bytes), "This");
}

// --- internal ---

/** `name` stands in the error. */
function textsIn(file: FileSlices, name: string): FoundTexts {
  const format = imageFormatIn(file.read(0, 64));
  if (format === null) {
    throw new BasedXLError(
      "io",
      `${name} is no image in a format that is read: PNG, JPEG, WebP and AVIF are.`,
    );
  }
  if (format === "png") {
    const problems: string[] = [];
    const chunks = readPngTexts(file, (what) => void problems.push(what));
    const bytes = chunks.get(exifKeyword);
    chunks.delete(exifKeyword);
    const exif = decodeExif(Buffer.from(bytes ?? "", "latin1"));
    return { format, chunks, exif, problems };
  }
  const read = { jpeg: readJpegExif, webp: readWebpExif, avif: readAvifExif }[format];
  const exif = decodeExif(read(file) ?? Buffer.alloc(0));
  return { format, chunks: new Map(), exif, problems: [] };
}

/** The format that the first bytes of a file show; null for none. */
function imageFormatIn(start: Buffer): ImageFormat | null {
  if (isPng(start)) return "png";
  if (isJpeg(start)) return "jpeg";
  if (isWebp(start)) return "webp";
  return isAvif(start) ? "avif" : null;
}
