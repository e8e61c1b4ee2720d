/**
 * Small versions of image files, made on the threads of the image library.
 */
import { importSharp } from "./sharp.ts";

/** At most `side` pixels a side; null where nothing here can read the file. */
export async function thumbnailOf(
  path: string,
  side: number,
): Promise<{ bytes: Uint8Array; type: string } | null> {
  try {
    const sharp = await importSharp();
    const image = sharp(path, { limitInputPixels: 2 ** 28 }).rotate();
    const size = { width: side, height: side, fit: "inside", withoutEnlargement: true } as const;
    const bytes = await image.resize(size).webp({ quality: 80 }).toBuffer();
    return { bytes, type: "image/webp" };
  } catch {
    return null;
  }
}
