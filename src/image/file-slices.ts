/**
 * Reads parts of a file without reading the rest, or of bytes in its place.
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { BasedXLError, escaped } from "../errors.ts";
import { absolutePath } from "../paths.ts";

export class FileSlices implements Disposable {
  private constructor(
    private readonly source: number | Buffer,
    readonly size: number,
  ) {}

  /** Of a file's bytes in memory. */
  static of({ buffer, byteOffset, byteLength }: Uint8Array): FileSlices {
    return new FileSlices(Buffer.from(buffer, byteOffset, byteLength), byteLength);
  }

  /** Throws "io" with the system's reason. */
  static open(path: string): FileSlices {
    const refuse = (why: string) =>
      new BasedXLError("io", `Cannot read ${escaped(path, 300)}: ${escaped(why, 300)}.`);
    const place = absolutePath(path);
    try {
      const file = openSync(place, "r");
      const stat = fstatSync(file);
      if (stat.isFile()) return new FileSlices(file, stat.size);
      closeSync(file);
    } catch (error) {
      throw refuse((error as Error).message);
    }
    throw refuse("it is not a file");
  }

  /** The bytes from `at`; fewer than `length` at the end of the file. */
  read(at: number, length: number): Buffer {
    if (typeof this.source === "object") return this.source.subarray(at, at + length);
    const bytes = Buffer.alloc(Math.max(0, Math.min(length, this.size - at)));
    const count = readSync(this.source, bytes, 0, bytes.length, at);
    return bytes.subarray(0, count);
  }

  [Symbol.dispose](): void {
    if (typeof this.source === "number") closeSync(this.source);
  }
}
