/**
 * Images to start from and masks, made on the spot.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodeFile } from "../../src/image.ts";

interface Sizes {
  width: number;
  height: number;
}

/** A PNG of colours that differ from pixel to pixel. */
export async function colouredPng({ width, height }: Sizes): Promise<Uint8Array> {
  const pixels = Uint8Array.from({ length: width * height * 3 }, (_, at) => {
    return (Math.imul(at, 2654435761) >>> 27) + 4 * (Math.floor(at / 3) % width);
  });
  return (await encodeFile("png", { width, height, pixels })).bytes;
}

/** A PNG that is black but for a white square in its middle. */
export async function squareMask({ width, height }: Sizes): Promise<Uint8Array> {
  const isInside = (place: number, size: number) => place >= size / 4 && place < (3 * size) / 4;
  const pixels = Uint8Array.from({ length: width * height * 3 }, (_, at) => {
    const [column, row] = [Math.floor(at / 3) % width, Math.floor(at / 3 / width)];
    return isInside(column, width) && isInside(row, height) ? 255 : 0;
  });
  return (await encodeFile("png", { width, height, pixels })).bytes;
}

/** The mask's square as a hole in the alpha of an RGBA image. */
export async function holed(mask: Uint8Array): Promise<Uint8Array> {
  const sharp = (await import("sharp")).default;
  const alpha = await sharp(mask).toColourspace("b-w").negate().raw().toBuffer();
  const { width, height } = await sharp(mask).metadata();
  const raw = { width, height, channels: 1 as const };
  const grey = sharp({ create: { width, height, channels: 3, background: "#808080" } });
  return await grey.joinChannel(alpha, { raw }).png().toBuffer();
}

/** A JPEG of 96x64, white on its left, that EXIF turns by a quarter: white is at the top then. */
export async function turnedJpeg(): Promise<Uint8Array> {
  const sharp = (await import("sharp")).default;
  const size = { width: 96, height: 64 };
  const pixels = Uint8Array.from({ length: 96 * 64 }, (_, at) => (at % 96 < 48 ? 255 : 0));
  const image = sharp(pixels, { raw: { ...size, channels: 1 } });
  return await image.jpeg().withMetadata({ orientation: 6 }).toBuffer();
}

/** The bytes in a file of their own, which goes with the object. */
export async function written(bytes: Uint8Array) {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-input-"));
  const path = join(folder, "image.png");
  await Bun.write(path, bytes);
  return {
    ...{ bytes, path },
    async [Symbol.asyncDispose]() {
      rmSync(folder, { recursive: true });
    },
  };
}
