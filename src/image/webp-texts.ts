/**
 * EXIF in WebP files: a chunk behind the pixels, and a flag in the chunk VP8X at the start, which
 * plain files lack. Source: RFC 9649.
 */
import type { FileSlices } from "./file-slices.ts";

/** `webp`, an image of this size without alpha, with EXIF. */
export function withWebpExif(
  webp: Uint8Array,
  exif: Uint8Array,
  { width, height }: { width: number; height: number },
): Uint8Array {
  const bytes = Buffer.from(webp.buffer, webp.byteOffset, webp.byteLength);
  const isExtended = bytes.toString("latin1", 12, 16) === "VP8X";
  const head = Buffer.alloc(10);
  if (isExtended) bytes.copy(head, 0, 20, 30);
  else {
    head.writeUIntLE(width - 1, 4, 3);
    head.writeUIntLE(height - 1, 7, 3);
  }
  head[0]! |= exifFlag;
  const rest = bytes.subarray(isExtended ? 30 : 12);
  const chunks = Buffer.concat([chunk("VP8X", head), rest, chunk("EXIF", exif)]);
  const file = Buffer.alloc(12);
  file.write("RIFF", 0, "latin1");
  file.writeUInt32LE(4 + chunks.length, 4);
  file.write("WEBP", 8, "latin1");
  return Buffer.concat([file, chunks]);
}

export function isWebp(start: Buffer): boolean {
  return start.toString("latin1", 0, 4) === "RIFF" && start.toString("latin1", 8, 12) === "WEBP";
}

/** The EXIF of the file; null where it has none. */
export function readWebpExif(file: FileSlices): Buffer | null {
  let at = 12;
  for (let count = 0; at + 8 <= file.size && count < chunkCountMax; count++) {
    const head = file.read(at, 8);
    const length = head.readUInt32LE(4);
    if (head.toString("latin1", 0, 4) === "EXIF") {
      return length <= exifBytesMax ? file.read(at + 8, length) : null;
    }
    at += 8 + length + (length % 2);
  }
  return null;
}

// --- internal ---

const exifFlag = 8;
const chunkCountMax = 1_000_000;
const exifBytesMax = 2 ** 25;

function chunk(name: string, data: Uint8Array): Buffer {
  const bytes = Buffer.alloc(8 + data.length + (data.length % 2));
  bytes.write(name, 0, "latin1");
  bytes.writeUInt32LE(data.length, 4);
  bytes.set(data, 8);
  return bytes;
}
