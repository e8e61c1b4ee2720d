/**
 * What processes on several machines compare of large files: sizes and pieces, as reading all of
 * them takes minutes.
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";

/** A file's size with a hash of pieces of it: another VAE or fine-tune may have the same size. */
export function sampleOf(path: string): string {
  const file = openSync(path, "r");
  try {
    const { size } = fstatSync(file);
    const piece = Buffer.alloc(sampleBytes);
    let hash = 0n;
    for (let index = 0; index < sampleCount; index++) {
      const position = Math.floor((size * index) / sampleCount);
      const length = readSync(file, piece, 0, sampleBytes, position);
      hash = BigInt(Bun.hash(piece.subarray(0, length), hash));
    }
    return `${size} ${hash.toString(16)}`;
  } finally {
    closeSync(file);
  }
}

// --- internal ---

const sampleCount = 32;
const sampleBytes = 4096;
