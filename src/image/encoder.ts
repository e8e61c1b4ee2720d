/**
 * Encodes pixels as an image file: with sharp, or with Bun's own encoders where sharp's library
 * cannot be loaded (no libstdc++, for example). The pixels of a PNG are the same either way.
 */
import type { Sharp } from "sharp";
import { importSharp } from "./sharp.ts";

export const imageFormats = ["png", "jpeg", "webp", "avif"] as const;
export type ImageFormat = (typeof imageFormats)[number];

interface Encoder {
  name: string;
  formats: readonly ImageFormat[];
  /** Why sharp is not used, and the remedy, in sentences; null with sharp. */
  problem: string | null;
  /**
   * RGB `pixels` (height, width, 3) as a file, with sharp also RGBA; `quality` from 1 to 100 of all
   * but PNG. Rejects with the library's own error.
   */
  encode(
    format: ImageFormat,
    pixels: Uint8Array,
    size: Size,
    quality?: number,
  ): Promise<Uint8Array>;
}

export interface Size {
  width: number;
  height: number;
}

/** The encoder of this machine; loaded once. Throws "setup" where the binary cannot extract it. */
export function loadEncoder(): Promise<Encoder> {
  loaded ??= sharpEncoder().then((found) => (typeof found === "string" ? bunOnly(found) : found));
  return loaded;
}

/**
 * The size of an image, of bytes or at a path, once it is turned as its EXIF says; null where
 * nothing here can read its header.
 */
export async function imageSizeOf(image: string | Uint8Array): Promise<Size | null> {
  try {
    const sharp = await importSharp();
    const { autoOrient } = await sharp(image, { limitInputPixels: false }).metadata();
    return autoOrient;
  } catch {
    return null;
  }
}

/** Bun's encoders alone; `why` is the reason that sharp is not used. */
function bunOnly(why: string): Encoder {
  return {
    name: `Bun ${Bun.version}`,
    formats: ["png", "jpeg", "webp"],
    problem: `sharp cannot be loaded (${why}).${remedy(why)}`,
    async encode(format, pixels, { width, height }, quality = 95) {
      const maxPixels = width * height;
      const image = new Bun.Image(bitmapOf(pixels, { width, height }), { maxPixels });
      if (format === "jpeg") return await image.jpeg({ quality }).bytes();
      if (format === "webp") return await image.webp({ quality }).bytes();
      return await image.png().bytes();
    },
  };
}

// --- internal ---

let loaded: Promise<Encoder> | null = null;

const settings: Record<ImageFormat, (image: Sharp, quality?: number) => Sharp> = {
  png: (image) => image.png(),
  jpeg: (image, quality = 95) => image.jpeg({ quality, chromaSubsampling: "4:4:4" }),
  webp: (image, quality = 95) => image.webp({ quality }),
  // Effort 3 gives the bytes of sharp's default 4 in a fifth of the time (1.5 s at 1024x1024).
  avif: (image, quality = 80) => image.avif({ quality, chromaSubsampling: "4:4:4", effort: 3 }),
};

/** sharp, or the reason why it cannot be loaded. */
async function sharpEncoder(): Promise<Encoder | string> {
  let sharp: Awaited<ReturnType<typeof importSharp>>;
  try {
    sharp = await importSharp();
  } catch (error) {
    if ((error as Error).name === "BasedXLError") throw error;
    return firstCause(error as Error);
  }
  return {
    name: `sharp ${sharp.versions.sharp}, libvips ${sharp.versions.vips}`,
    formats: imageFormats,
    problem: null,
    async encode(format, pixels, { width, height }, quality) {
      const channels = pixels.length === width * height * 4 ? 4 : 3;
      const raw = { width, height, channels } as const;
      const image = sharp(pixels, { raw, limitInputPixels: false });
      return await settings[format](image, quality).toBuffer();
    },
  };
}

/** sharp's error is a page of advice on npm; the linker's line in it names the missing library. */
function firstCause({ message }: Error): string {
  const line = message.split("\n").find((each) => /\.so|\.dylib|microarchitecture/.test(each));
  const cause = line ?? message.split("\n")[0] ?? "no reason given";
  return cause
    .replace(/^\s*ERR_\w+: /, "")
    .trim()
    .replace(/\.$/, "");
}

function remedy(why: string): string {
  if (!/libstdc\+\+|libgcc_s/.test(why)) return "";
  return " The package libstdc++6 (Debian, Ubuntu) or libstdc++ (Fedora, RHEL) brings it.";
}

/** A BMP file of 24 bits, rows from the top. */
function bitmapOf(pixels: Uint8Array, { width, height }: Size): Uint8Array {
  const headerBytes = 54;
  const rowBytes = (width * 3 + 3) & ~3;
  const bytes = new Uint8Array(headerBytes + rowBytes * height);
  const view = new DataView(bytes.buffer);
  bytes.set([0x42, 0x4d]);
  view.setUint32(2, bytes.length, true);
  view.setUint32(10, headerBytes, true);
  view.setUint32(14, 40, true);
  view.setInt32(18, width, true);
  view.setInt32(22, -height, true);
  view.setUint16(26, 1, true);
  view.setUint16(28, 24, true);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const from = (row * width + column) * 3;
      const to = headerBytes + row * rowBytes + column * 3;
      bytes[to] = pixels[from + 2] ?? 0;
      bytes[to + 1] = pixels[from + 1] ?? 0;
      bytes[to + 2] = pixels[from] ?? 0;
    }
  }
  return bytes;
}
