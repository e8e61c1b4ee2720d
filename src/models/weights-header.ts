/**
 * A look at the header of a safetensors file: whether the file is as long as its tensors need. What
 * the tensors are is checked by the native library, when it loads them.
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { basename } from "node:path";

/** A sentence about the file at `path` when it is cut off or no safetensors file; else null. */
export function headerProblem(path: string): string | null {
  const file = openSync(path, "r");
  try {
    const { size } = fstatSync(file);
    const length = Buffer.alloc(8);
    readSync(file, length, 0, 8, 0);
    const headerBytes = Number(length.readBigUInt64LE());
    if (size < 8 || headerBytes > Math.min(headerBytesMax, size - 8)) {
      return `${basename(path)} is no whole safetensors file.`;
    }
    const header = Buffer.alloc(headerBytes);
    readSync(file, header, 0, headerBytes, 8);
    const end = dataEnd(JSON.parse(header.toString("utf8")));
    const missing = 8 + headerBytes + end - size;
    return missing > 0 ? `${basename(path)} is cut off: ${missing} bytes are missing.` : null;
  } catch {
    return `${basename(path)} cannot be read as a safetensors file.`;
  } finally {
    closeSync(file);
  }
}

// --- internal ---

/** Many times what the largest SDXL file has: nobody's header is worth more memory. */
const headerBytesMax = 2 ** 24;

/** The end of the last tensor, from the end of the header. */
function dataEnd(header: Record<string, { data_offsets?: [number, number] }>): number {
  return Object.values(header).reduce((end, { data_offsets }) => {
    return Math.max(end, data_offsets?.[1] ?? 0);
  }, 0);
}
