/**
 * Reads images that generation starts from, as RGB or as grey: files of PNG, JPEG, WebP, AVIF, TIFF
 * and the first frame of GIF, or pixels. Turned as their EXIF says, over a colour where they are
 * transparent, in sRGB of 8 bits whatever the file has.
 */
import type { Sharp } from "sharp";
import { BasedXLError, escaped } from "../errors.ts";
import { readLimitedFile } from "../limited-read.ts";
import { splitAlpha } from "./alpha.ts";
import type { Size } from "./encoder.ts";
import { importSharp } from "./sharp.ts";

/** Pixels, row by row: RGB where there are three bytes for each, grey where there is one. */
export interface RawImage extends Size {
  pixels: Uint8Array;
}

export function channelsOf({ pixels, width, height }: RawImage): 1 | 3 {
  return pixels.length === width * height ? 1 : 3;
}

/** An image, and the SHA-256 of its pixels in hexadecimal digits. */
export interface HashedImage {
  image: RawImage;
  hash: string;
}

/** An image, and how opaque each pixel is, in grey; null where all are. */
interface ImageWithAlpha {
  image: RawImage;
  alpha: RawImage | null;
}

/** The path of a file, the bytes of one, or pixels. */
export type ImageSource = string | Uint8Array | RawImage;

interface ReadOptions {
  /** How messages name the image, such as "--image". */
  name: string;
  channels: 1 | 3;
  /** Behind transparent pixels, "#rrggbb". */
  background: string;
}

/** 16384 x 8192. */
export const pixelCountMax = 2 ** 27;
/** Of a file: so many pixels in 16 bits with alpha, and no compression. */
export const imageBytesMax = 2 ** 30;
const formats = ["png", "jpeg", "webp", "heif", "avif", "tiff", "gif"];

/**
 * Rejects with "io" for a file that cannot be read, "bad-option" for one that is no image or too
 * large, "setup" where sharp cannot be loaded.
 */
export async function readImage(source: ImageSource, options: ReadOptions): Promise<RawImage> {
  const { name, channels, background } = options;
  if (typeof source === "object" && "pixels" in source) return ofPixels(source, options);
  return await decoded(source, name, async (image) => {
    const flat = image.flatten({ background });
    const turned = channels === 3 ? flat.toColourspace("srgb") : flat.toColourspace("b-w");
    return await pixelsOf(turned.removeAlpha(), channels);
  });
}

/** As `readImage`, with the hash of the pixels. */
export async function readHashed(source: ImageSource, options: ReadOptions): Promise<HashedImage> {
  const image = await readImage(source, options);
  return { image, hash: new Bun.CryptoHasher("sha256").update(image.pixels).digest("hex") };
}

/** As `readImage`, in RGB, with the transparency of files. */
export async function readWithAlpha(source: ImageSource, name: string): Promise<ImageWithAlpha> {
  if (typeof source === "object" && "pixels" in source) {
    const options = { name, channels: 3, background: "#ffffff" } as const;
    return { image: ofPixels(source, options), alpha: null };
  }
  return await decoded(source, name, async (turned, hasAlpha) => {
    const image = turned.toColourspace("srgb");
    if (!hasAlpha) return { image: await pixelsOf(image.removeAlpha(), 3), alpha: null };
    const { pixels, ...size } = await pixelsOf(image.ensureAlpha(), 4);
    const { rgb, alpha } = splitAlpha(pixels);
    return { image: { ...size, pixels: rgb }, alpha: { ...size, pixels: alpha } };
  });
}

/** sharp, which nothing else can stand in for. Rejects with "setup". */
export async function loadSharp(): Promise<typeof import("sharp")["default"]> {
  try {
    return await importSharp();
  } catch (error) {
    if (error instanceof BasedXLError) throw error;
    const why = (error as Error).message.split("\n")[0];
    throw new BasedXLError("setup", `Images cannot be read: sharp cannot be loaded (${why}).`);
  }
}

// --- internal ---

/** What `read` makes of an image, turned as its EXIF says. */
async function decoded<T>(
  source: string | Uint8Array,
  name: string,
  read: (image: Sharp, hasAlpha: boolean) => Promise<T>,
): Promise<T> {
  const what = typeof source === "string" ? `${name} ${escaped(source)}` : name;
  const bytes = typeof source === "string" ? await bytesOf(source, what) : source;
  if (bytes.length === 0) throw new BasedXLError("bad-option", `${what} is empty.`);
  const sharp = await loadSharp();
  try {
    const image = sharp(bytes, { limitInputPixels: false, pages: 1, failOn: "error" });
    const { format, width, height, hasAlpha } = await image.metadata();
    if (!formats.includes(format)) throw new Error(`it is ${format}`);
    checkSize(what, { width, height });
    return await read(image.autoOrient(), hasAlpha);
  } catch (error) {
    if (error instanceof BasedXLError) throw error;
    const why = escaped((error as Error).message.split("\n")[0] ?? "", 120).replace(/[.\s]+$/, "");
    throw new BasedXLError(
      "bad-option",
      `${what} cannot be read as an image (${why}): PNG, JPEG, WebP, AVIF, TIFF and GIF can.`,
    );
  }
}

async function pixelsOf(image: Sharp, channels: 1 | 3 | 4): Promise<RawImage> {
  const { data, info } = await image.raw().toBuffer({ resolveWithObject: true });
  if (info.channels !== channels) throw new Error(`it has ${info.channels} channels`);
  const { width, height } = info;
  return { width, height, pixels: new Uint8Array(data.buffer, data.byteOffset, data.length) };
}

function ofPixels({ pixels, width, height }: RawImage, { name, channels }: ReadOptions): RawImage {
  const isSize = [width, height].every((side) => Number.isInteger(side) && side > 0);
  if (isSize) checkSize(name, { width, height });
  const count = width * height;
  if (!isSize || !(pixels instanceof Uint8Array) || ![1, 3].includes(pixels.length / count)) {
    throw new BasedXLError(
      "bad-option",
      `${name} must have width times height pixels of three bytes, or of one, but has \
${pixels?.length} bytes for ${width}x${height}.`,
    );
  }
  if (pixels.length === count * channels) return { pixels, width, height };
  const turned = new Uint8Array(count * channels);
  for (let i = 0; i < count; i++) {
    if (channels === 3) turned.fill(pixels[i]!, 3 * i, 3 * i + 3);
    else turned[i] = grey(pixels[3 * i]!, pixels[3 * i + 1]!, pixels[3 * i + 2]!);
  }
  return { pixels: turned, width, height };
}

/** Rec. 601, as PIL. */
function grey(red: number, green: number, blue: number): number {
  return Math.round(0.299 * red + 0.587 * green + 0.114 * blue);
}

async function bytesOf(path: string, what: string): Promise<Uint8Array> {
  try {
    return await readLimitedFile(path, imageBytesMax);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const why = code === "ENOENT" ? "there is no such file" : (code ?? message);
    throw new BasedXLError("io", `${what} cannot be read: ${why}.`);
  }
}

function checkSize(what: string, { width, height }: Size): void {
  if (width * height <= pixelCountMax) return;
  throw new BasedXLError(
    "bad-option",
    `${what} has ${width}x${height} pixels: ${pixelCountMax / 2 ** 20} million are possible.`,
  );
}
