/**
 * SHA-256 of files without keeping the event loop: a large file is hashed by a thread of its own,
 * `sha256-worker.ts`; a small one in pieces of a millisecond.
 */
import { statSync } from "node:fs";
import { cancelled } from "../errors.ts";
import { resources } from "../resources.ts";
import { type PiecesOptions, sha256InPieces } from "./sha256-pieces.ts";
import type { HashAnswer, HashQuestion } from "./sha256-worker.ts";

export type Sha256Options = Partial<Omit<PiecesOptions, "pieceBytes">>;

/** In 64 hex digits. Rejects where the file cannot be read, and with "cancelled". */
export async function sha256Of(
  path: string,
  { onProgress = () => {}, signal, start = 0 }: Sha256Options,
): Promise<string> {
  if (signal?.aborted) throw cancelled("Stopped before all files were hashed.");
  const options = { onProgress, signal, start };
  if (statSync(path).size - start > threadBytesMin) return await inThread(path, options);
  return await sha256InPieces(path, { ...options, pieceBytes: smallPieceBytes });
}

// --- internal ---

/** A thread takes longer to start than smaller files take to hash. */
const threadBytesMin = 2 ** 24;
const smallPieceBytes = 2 ** 18;

async function inThread(
  path: string,
  { onProgress, signal, start }: Omit<PiecesOptions, "pieceBytes">,
): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const worker = new Worker(resources.hashWorker, { smol: true });
  const stop = () => worker.postMessage(null);
  worker.onmessage = ({ data }: MessageEvent<HashAnswer>) => {
    if ("bytes" in data) onProgress(data.bytes);
    else if ("sha256" in data) resolve(data.sha256);
    else if (signal?.aborted) reject(cancelled("Stopped before all files were hashed."));
    else reject(new Error(data.problem));
  };
  worker.onerror = ({ message }) => reject(new Error(message));
  signal?.addEventListener("abort", stop);
  try {
    worker.postMessage({ path, start } satisfies HashQuestion);
    return await promise;
  } finally {
    signal?.removeEventListener("abort", stop);
    worker.terminate();
  }
}
