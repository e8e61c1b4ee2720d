/**
 * Pieces of a file of weights. A read may give less than was asked for before it fails, as where a
 * disk has a bad block: it is repeated, so that the failure is told.
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { BasedXLError } from "../errors.ts";
import { readProblem, sentenceOf } from "./files.ts";

interface Pieces {
  /** Of the file, in bytes. */
  size: number;
  /** `count` bytes from `begin` on; fewer where the file ends. */
  at(begin: number, count: number): Buffer;
}

/** What `read` makes of the file at `path`. Throws "bad-weights" where it cannot be read. */
export function readPieces<T>(path: string, read: (pieces: Pieces) => T): T {
  const told = <R>(call: () => R): R => {
    try {
      return call();
    } catch (error) {
      const what = sentenceOf(readProblem(error as NodeJS.ErrnoException));
      throw new BasedXLError("bad-weights", `${path} ${what}`);
    }
  };
  const file = told(() => openSync(path, "r"));
  try {
    const { size } = told(() => fstatSync(file));
    return read({ size, at: (begin, count) => told(() => readAt(file, begin, count)) });
  } finally {
    closeSync(file);
  }
}

// --- internal ---

function readAt(file: number, begin: number, count: number): Buffer {
  const bytes = Buffer.alloc(count);
  let length = 0;
  while (length < count) {
    const more = readSync(file, bytes, length, count - length, begin + length);
    if (more === 0) break;
    length += more;
  }
  return bytes.subarray(0, length);
}
