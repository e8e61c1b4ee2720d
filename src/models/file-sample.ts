/**
 * What processes on several machines compare of large files: sizes and pieces, as reading all of
 * them takes minutes.
 */
import { readPieces } from "./pieces.ts";

/** A file's size with a hash of pieces of it: another VAE or fine-tune may have the same size. */
export function sampleOf(path: string): string {
  return readPieces(path, ({ size, at }) => {
    let hash = 0n;
    for (let index = 0; index < sampleCount; index++) {
      const position = Math.floor((size * index) / sampleCount);
      hash = BigInt(Bun.hash(at(position, sampleBytes), hash));
    }
    return `${size} ${hash.toString(16)}`;
  });
}

// --- internal ---

const sampleCount = 32;
const sampleBytes = 4096;
