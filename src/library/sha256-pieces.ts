/**
 * SHA-256 of a file from some byte on: one piece is read while the one before is hashed, so that
 * files of any size take little memory.
 */
import { open } from "node:fs/promises";
import { cancelled } from "../errors.ts";

export interface PiecesOptions {
  /** Bytes that were read. */
  onProgress: (bytes: number) => void;
  signal?: AbortSignal | undefined;
  /** The first byte that counts: sites know LoRAs by the hash of what follows the header. */
  start: number;
  pieceBytes: number;
}

/** In 64 hex digits. Rejects where the file cannot be read, and with "cancelled". */
export async function sha256InPieces(
  path: string,
  { onProgress, signal, start, pieceBytes }: PiecesOptions,
): Promise<string> {
  const file = await open(path, "r");
  try {
    const hasher = new Bun.CryptoHasher("sha256");
    let [current, next] = [Buffer.allocUnsafe(pieceBytes), Buffer.allocUnsafe(pieceBytes)];
    let bytes = 0;
    let { bytesRead } = await file.read(current, 0, pieceBytes, start);
    while (bytesRead > 0) {
      if (signal?.aborted) throw cancelled("Stopped before all files were hashed.");
      const position = bytes + bytesRead;
      const reading = file.read(next, 0, pieceBytes, start + position);
      hasher.update(current.subarray(0, bytesRead));
      bytes = position;
      onProgress(bytes);
      ({ bytesRead } = await reading);
      [current, next] = [next, current];
    }
    return hasher.digest("hex");
  } finally {
    await file.close();
  }
}
