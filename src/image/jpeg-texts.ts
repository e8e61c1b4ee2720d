/**
 * EXIF in JPEG files: the segment APP1, behind the start of the image. Source: Exif 2.32, 4.5.4.
 */
import type { FileSlices } from "./file-slices.ts";

/** `jpeg` with EXIF, or null where it does not fit into a segment. */
export function withJpegExif(jpeg: Uint8Array, exif: Uint8Array): Uint8Array | null {
  const payload = Buffer.concat([exifMark, exif]);
  if (payload.length + 2 > 0xffff) return null;
  const head = Buffer.from([0xff, app1, 0, 0]);
  head.writeUInt16BE(payload.length + 2, 2);
  return Buffer.concat([jpeg.subarray(0, 2), head, payload, jpeg.subarray(2)]);
}

export function isJpeg(start: Buffer): boolean {
  return start[0] === 0xff && start[1] === 0xd8 && start[2] === 0xff;
}

/** The EXIF of the file; null where it has none. */
export function readJpegExif(file: FileSlices): Buffer | null {
  let at = 2;
  for (let count = 0; count < segmentCountMax; count++) {
    const head = file.read(at, 4);
    if (head.length < 4 || head[0] !== 0xff) return null;
    const marker = head[1]!;
    if (marker === 0xff) {
      at++;
      continue;
    }
    // The pixels begin, or the image ends.
    if (marker === 0xda || marker === 0xd9) return null;
    const length = head.readUInt16BE(2);
    if (marker === app1) {
      const payload = file.read(at + 4, length - 2);
      if (payload.subarray(0, exifMark.length).equals(exifMark)) return payload;
    }
    at += 2 + length;
  }
  return null;
}

// --- internal ---

const app1 = 0xe1;
const exifMark = Buffer.from("Exif\0\0", "latin1");
const segmentCountMax = 10_000;
