/**
 * The lock of one content of the cache, as huggingface_hub takes it: two processes do not fetch the
 * same content twice. Where the file system has no locks both do, which costs time alone: they
 * write the same bytes to the same places.
 */
import { closeSync, constants, fstatSync, openSync } from "node:fs";
import { join } from "node:path";
import { stopIfAborted } from "../errors.ts";
import { tryFileLock } from "../native/file-lock.ts";
import type { RepositoryCache } from "./cache.ts";
import type { HubClient } from "./http.ts";

/** Waits for the lock of `etag` and resolves to what releases it. `name` is for the message. */
export async function lockBlob(
  cache: RepositoryCache,
  etag: string,
  name: string,
  { signal, say }: HubClient,
): Promise<Disposable> {
  const path = join(cache.locks, `${etag}.lock`);
  for (let turns = 0; ; turns++) {
    stopIfAborted(signal);
    const file = cache.writing(path, () => openSync(path, flags, 0o664));
    const result = tryFileLock(file);
    // The one who had it may have removed the file: then nobody else would see this lock.
    if (result !== "taken" && fstatSync(file).nlink > 0) {
      return { [Symbol.dispose]: () => closeSync(file) };
    }
    closeSync(file);
    if (turns === 4) say(`Waiting for another process that fetches ${name}.`);
    await Bun.sleep(turnMs);
  }
}

// --- internal ---

const turnMs = 200;
const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
