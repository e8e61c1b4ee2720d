/**
 * A thread that hashes a file: `sha256.ts` starts it, asks once, and ends it. It gets null where it
 * is to stop.
 */
import { sha256InPieces } from "./sha256-pieces.ts";

export interface HashQuestion {
  path: string;
  start: number;
}

/** How far it is, then the hash or why there is none. */
export type HashAnswer = { bytes: number } | { sha256: string } | { problem: string };

declare const self: Worker;

const stop = new AbortController();

self.onmessage = async ({ data }: MessageEvent<HashQuestion | null>) => {
  if (data === null) return stop.abort();
  const { path, start } = data;
  const tell = (answer: HashAnswer) => self.postMessage(answer);
  try {
    const onProgress = (bytes: number) => tell({ bytes });
    const options = { onProgress, start, signal: stop.signal, pieceBytes: 2 ** 22 };
    tell({ sha256: await sha256InPieces(path, options) });
  } catch (error) {
    tell({ problem: (error as Error).message });
  }
};
