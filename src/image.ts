/**
 * Writes images to files, in the format that the file's ending names. Call `checkImageSize` before
 * generating: an encoder would refuse the size only after the image is generated.
 */

import { BasedXLError, stopIfAborted } from "./errors.ts";
import { type ImageFormat, imageFormats, loadEncoder } from "./image/encoder.ts";
import type { ImageTexts } from "./image/exif.ts";
import { writeWhole } from "./image/files.ts";
import type { Pixels } from "./image/reduce.ts";
import { withTexts } from "./image/texts.ts";

export type { ImageTexts } from "./image/exif.ts";
export { checkWritable } from "./image/files.ts";
export { enlarged, type Pixels, reduced, reduceRow, withPalette } from "./image/reduce.ts";

interface FormatEntry {
  endings: readonly string[];
  /** Largest width and height the format (or its encoder) can hold. */
  sideMax: number;
}

const formats: Record<ImageFormat, FormatEntry> = {
  png: { endings: ["png"], sideMax: 2 ** 31 - 1 },
  jpeg: { endings: ["jpg", "jpeg"], sideMax: 65500 },
  webp: { endings: ["webp"], sideMax: 16383 },
  avif: { endings: ["avif"], sideMax: 16384 },
};

/** The format that the ending of `path` names. Throws "bad-option" naming the endings there are. */
export function imageFormatOf(path: string): ImageFormat {
  const ending = /\.([^./\\]+)$/.exec(path)?.[1]?.toLowerCase() ?? "";
  const format = imageFormats.find((name) => formats[name].endings.includes(ending));
  if (format) return format;
  const endings = imageFormats
    .flatMap((name) => formats[name].endings.map((e) => `.${e}`))
    .join(", ");
  const what = ending ? `the ending .${ending}` : "no ending";
  throw new BasedXLError("bad-option", `The image ${path} has ${what}; use one of ${endings}.`);
}

/** The most pixels of a side in a format. */
export function imageSideMax(format: ImageFormat): number {
  return formats[format].sideMax;
}

/** Throws "bad-option" when the format of `path` cannot hold `width` x `height` pixels. */
export function checkImageSize(path: string, width: number, height: number): void {
  const format = imageFormatOf(path);
  const { sideMax } = formats[format];
  if (width <= sideMax && height <= sideMax) return;
  throw new BasedXLError(
    "bad-option",
    `A ${format} file holds at most ${sideMax} pixels a side, and the image is ` +
      `${width}x${height}; write a .png file instead.`,
  );
}

/**
 * Loads the encoder and returns a warning for the user, or null. Throws "setup"
 * when the format of `path` cannot be written on this machine.
 */
export async function checkEncoder(path: string): Promise<string | null> {
  const { formats: possible, problem } = await loadEncoder();
  if (problem === null) return null;
  if (possible.includes(imageFormatOf(path))) {
    return `${problem} The image is written by Bun's own encoders.`;
  }
  const endings = possible.flatMap((name) => formats[name].endings.map((each) => `.${each}`));
  throw new BasedXLError(
    "setup",
    `Cannot write ${path}: ${problem} Without it the endings are ${endings.join(", ")}.`,
  );
}

export interface WriteOptions {
  signal?: AbortSignal | undefined;
  /** Written into the file beside the pixels. */
  texts?: ImageTexts | undefined;
}

/**
 * Writes RGB `pixels` (height, width, 3), or RGBA, to `path`, replacing an existing file only when
 * whole.
 * Resolves to whether the texts are in it: long ones do not fit into every format. Throws
 * "bad-option" for an unknown ending or a size beyond the format's limit, "io" when it cannot be
 * written, "cancelled" at once after the signal: a running encoder cannot be stopped, only
 * abandoned.
 */
export async function writeImage(
  path: string,
  pixels: Uint8Array,
  width: number,
  height: number,
  { signal, texts }: WriteOptions = {},
): Promise<boolean> {
  if (![3, 4].includes(pixels.length / (width * height))) {
    throw new Error(`${pixels.length} bytes of pixels for ${width}x${height} RGB`);
  }
  const format = imageFormatOf(path);
  checkImageSize(path, width, height);
  const encoding = encodeFile(format, { pixels, width, height }, { texts, what: path });
  const { bytes, hasTexts } = await unlessAborted(encoding, signal);
  await writeWhole(path, bytes, signal);
  return hasTexts;
}

interface EncodeOptions {
  texts?: ImageTexts | undefined;
  /** 1 to 100, of all but PNG. Default: where nobody sees a difference. */
  quality?: number | undefined;
  /** How an error names the image. */
  what?: string;
}

/** The image as the bytes of a file, and whether the texts fit into it. Throws "io". */
export async function encodeFile(
  format: ImageFormat,
  { pixels, width, height }: Pixels,
  { texts, quality, what = "the image" }: EncodeOptions = {},
): Promise<{ bytes: Uint8Array; hasTexts: boolean }> {
  const size = { width, height };
  const encoded = await encode(what, format, pixels, size, quality);
  const whole = texts === undefined ? encoded : withTexts(format, encoded, texts, size);
  return { bytes: whole ?? encoded, hasTexts: whole !== null };
}

/** RGB `pixels` as the bytes of a PNG file. */
export async function encodePng(
  pixels: Uint8Array,
  width: number,
  height: number,
): Promise<Uint8Array> {
  const encoder = await loadEncoder();
  return await encoder.encode("png", pixels, { width, height });
}

// --- internal ---

async function encode(
  path: string,
  format: ImageFormat,
  pixels: Uint8Array,
  size: { width: number; height: number },
  quality?: number,
): Promise<Uint8Array> {
  const encoder = await loadEncoder();
  try {
    return await encoder.encode(format, pixels, size, quality);
  } catch (error) {
    throw new BasedXLError("io", `Cannot encode ${path}: ${(error as Error).message}.`);
  }
}

async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return await work;
  const { promise: aborted, resolve: abort } = Promise.withResolvers<void>();
  const listen = () => abort();
  signal.addEventListener("abort", listen);
  try {
    if (!signal.aborted) await Promise.race([work, aborted]);
    if (signal.aborted) work.catch(() => {});
    stopIfAborted(signal);
    return await work;
  } finally {
    signal.removeEventListener("abort", listen);
  }
}
