/**
 * Files that a user names, read up to a limit: a device or pipe that never ends takes no more
 * memory than the limit, and a file that is too large is not begun.
 */
import { closeSync, createReadStream, fstatSync, openSync, readSync } from "node:fs";
import { stat } from "node:fs/promises";

/** What a file or pipe has, which is more than the limit. */
export class TooLong extends Error {
  readonly code: string;

  constructor(readonly bytesMax: number) {
    const limit = bytesMax >= 2 ** 20 ? `${bytesMax / 2 ** 20} MiB` : `${bytesMax / 2 ** 10} KiB`;
    super(`it has more than ${limit}`);
    this.code = this.message;
  }
}

/** Throws the error of the file system, or `TooLong`. */
export function readLimited(path: string, bytesMax: number): Buffer {
  const file = openSync(path, "r");
  try {
    const facts = fstatSync(file);
    if (facts.size > bytesMax) throw new TooLong(bytesMax);
    const pieces: Buffer[] = [];
    for (let total = 0; ; ) {
      // One byte more than the size tells the end of a regular file.
      const room = facts.isFile() ? Math.max(facts.size - total, 0) + 1 : pieceBytes;
      const piece = Buffer.allocUnsafe(room);
      const count = readSync(file, piece);
      if (count === 0) return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
      total += count;
      if (total > bytesMax) throw new TooLong(bytesMax);
      pieces.push(piece.subarray(0, count));
    }
  } finally {
    closeSync(file);
  }
}

/** As `readLimited`, without holding up what else runs. */
export async function readLimitedFile(path: string, bytesMax: number): Promise<Uint8Array> {
  if ((await stat(path)).size > bytesMax) throw new TooLong(bytesMax);
  return await collectLimited(createReadStream(path), bytesMax);
}

/** A stream, such as standard input, as a whole. Rejects with `TooLong`. */
export async function collectLimited(
  stream: AsyncIterable<Uint8Array>,
  bytesMax: number,
): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  let total = 0;
  for await (const piece of stream) {
    total += piece.length;
    if (total > bytesMax) throw new TooLong(bytesMax);
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

// --- internal ---

const pieceBytes = 2 ** 16;
