/**
 * Encoded images in another format or size, turned as their EXIF says, for answers of other
 * programs.
 */
import { type ImageFormat, imageSizeOf, type Size } from "../../image/encoder.ts";
import { loadSharp, type RawImage } from "../../image/read.ts";

interface Conversion {
  format: ImageFormat;
  /** Pixels; both or none. */
  width?: number | undefined;
  height?: number | undefined;
  /** Cuts what does not fit the shape in the place of distorting it. */
  crop?: boolean | undefined;
  kernel?: "lanczos3" | "nearest" | undefined;
  /** 1 to 100, of formats that lose something. */
  quality?: number | undefined;
}

/** The most pixels of an image from outside, and of one that is made of it. */
export const pixelsMax = 2 ** 26;

/** Rejects with sharp's error for bytes that are no image or too large a one, or with "setup". */
export async function converted(
  bytes: Uint8Array,
  { format, width, height, crop, kernel = "lanczos3", quality }: Conversion,
): Promise<Uint8Array> {
  const sharp = await loadSharp();
  const image = sharp(bytes, { limitInputPixels: pixelsMax }).autoOrient();
  const sized =
    width === undefined
      ? image
      : image.resize(width, height, { fit: crop ? "cover" : "fill", kernel });
  return await sized.toFormat(format, quality === undefined ? {} : { quality }).toBuffer();
}

/** RGB as the file has it: what is transparent keeps its colour. Rejects as `converted` does. */
export async function colouredPixels(
  bytes: Uint8Array,
  limitInputPixels = pixelsMax,
): Promise<RawImage> {
  const sharp = await loadSharp();
  const image = sharp(bytes, { limitInputPixels, pages: 1 }).autoOrient();
  const plain = image.toColourspace("srgb").removeAlpha();
  const { data, info } = await plain.raw().toBuffer({ resolveWithObject: true });
  return { pixels: new Uint8Array(data), width: info.width, height: info.height };
}

/** The size of an encoded image; null for what is none, or too large a one. */
export async function sizeOfImage(bytes: Uint8Array): Promise<Size | null> {
  const size = await imageSizeOf(bytes);
  return size !== null && size.width * size.height <= pixelsMax ? size : null;
}

/** The type of MIME; null for what is none of the formats that are read, or too large an image. */
export async function typeOfImage(bytes: Uint8Array): Promise<string | null> {
  if ((await sizeOfImage(bytes)) === null) return null;
  const sharp = await loadSharp();
  const { format } = await sharp(bytes, { limitInputPixels: false }).metadata();
  const name = format === "heif" ? "avif" : format;
  return ["png", "jpeg", "webp", "avif", "gif", "tiff"].includes(name) ? `image/${name}` : null;
}

/** A PNG of an image of one channel. */
export async function pngOfGrey({ pixels, width, height }: RawImage): Promise<Uint8Array> {
  const sharp = await loadSharp();
  const raw = { width, height, channels: 1 as const };
  return await sharp(pixels, { raw, limitInputPixels: false })
    .toColourspace("b-w")
    .png()
    .toBuffer();
}

/** The bytes in base64, or in a `data:` address of them; null for what is neither. */
export function decodedBase64(text: string): Uint8Array | null {
  const encoded = /^data:[^,]{0,200};base64,/i.test(text.slice(0, 220))
    ? text.slice(text.indexOf(",") + 1)
    : text;
  const bytes = Buffer.from(encoded, "base64");
  return bytes.length === 0 ? null : bytes;
}
