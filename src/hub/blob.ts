/**
 * Fetches one content of a repository into the cache. Bytes go to `blobs/ETAG.incomplete`, at the
 * places where they belong, and are hashed on the way; whatever breaks off, now or in a later run,
 * goes on after the last byte. Only a file whose hash is right gets its final name.
 */
import { constants } from "node:fs";
import { type FileHandle, open, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { type BasedXLError, escaped, stopIfAborted } from "../errors.ts";
import { cacheError, type RepositoryCache } from "./cache.ts";
import { type HubClient, Interrupted, openTransfer, Retries, type Transfer } from "./http.ts";
import type { HubFile } from "./listing.ts";
import { lockBlob } from "./lock.ts";
import { refusal, type Wanted, webPageRefusal } from "./refusals.ts";

interface BlobSource {
  file: HubFile;
  url: string;
  wanted: Wanted;
}

/** Resolves when the content is in the cache; `onBytes` gets how much of it is there. */
export async function fetchBlob(
  client: HubClient,
  cache: RepositoryCache,
  source: BlobSource,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const { file } = source;
  const { etag, bytes } = file;
  const path = cache.blob(etag);
  using _ = await lockBlob(cache, etag, escaped(file.name, 200), client);
  if (cache.hasBlob(etag, bytes)) return onBytes(bytes);
  try {
    await adoptPartial(path, bytes);
    const partial = await Partial.open(`${path}.incomplete`, file, client.signal);
    try {
      await fill(client, source, partial, onBytes);
    } finally {
      await partial.close();
    }
    await rename(partial.path, path);
  } catch (error) {
    throw cacheError(error, path, cache.cacheFolder);
  }
}

// --- internal ---

const readBytes = 4 << 20;
const partBytesFirst = 1 << 20;
const partBytesMin = 16 << 10;
/** Times that a file may have to begin again because of other answers, before it is refused. */
const restartsMax = 5;

/** The file being filled, and the hash of what is in it. */
class Partial {
  /** Bytes that are there, and hashed. */
  bytes = 0;
  private hash: Bun.CryptoHasher;

  private constructor(
    readonly path: string,
    private readonly handle: FileHandle,
    private readonly file: HubFile,
  ) {
    this.hash = newHash(file);
  }

  /** Opens what an earlier run left, or a new file. */
  static async open(path: string, file: HubFile, signal: AbortSignal | undefined) {
    const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants;
    const handle = await open(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0o666);
    const partial = new Partial(path, handle, file);
    try {
      if ((await handle.stat()).size > file.bytes) await partial.restart();
      const buffer = new Uint8Array(readBytes);
      for (;;) {
        stopIfAborted(signal);
        const { bytesRead } = await handle.read(buffer, 0, readBytes, partial.bytes);
        if (bytesRead === 0) return partial;
        partial.hash.update(buffer.subarray(0, bytesRead));
        partial.bytes += bytesRead;
      }
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  async append(chunk: Uint8Array): Promise<void> {
    for (let done = 0; done < chunk.length; ) {
      const rest = chunk.length - done;
      done += (await this.handle.write(chunk, done, rest, this.bytes + done)).bytesWritten;
    }
    this.hash.update(chunk);
    this.bytes += chunk.length;
  }

  /** Whether the content has the hash that names it. To be asked once, at the end. */
  isRight(): boolean {
    return this.hash.digest("hex") === this.file.etag;
  }

  async restart(): Promise<void> {
    await this.handle.truncate(0);
    this.bytes = 0;
    this.hash = newHash(this.file);
  }

  async sync(): Promise<void> {
    await this.handle.sync();
  }

  async close(): Promise<void> {
    await this.handle.close();
  }
}

/** Large files are named by their sha256, the others by git's hash of a blob. */
function newHash({ isLfs, bytes }: HubFile): Bun.CryptoHasher {
  if (isLfs) return new Bun.CryptoHasher("sha256");
  return new Bun.CryptoHasher("sha1").update(`blob ${bytes}\0`);
}

/**
 * Takes over the longest partial that huggingface_hub left for this content under a name of its
 * own (ETAG.8HEX.incomplete), if it is longer than ours. It writes under the lock that we hold.
 */
async function adoptPartial(path: string, bytes: number): Promise<void> {
  const target = `${path}.incomplete`;
  let length = await bytesOf(target);
  const pattern = new RegExp(`^${basename(path)}\\.[0-9a-f]{8}\\.incomplete$`);
  const names = await readdir(dirname(path));
  for (const name of names.filter((each) => pattern.test(each))) {
    const other = join(dirname(path), name);
    const otherBytes = await bytesOf(other);
    if (otherBytes <= length || otherBytes > bytes) continue;
    await rename(other, target);
    length = otherBytes;
  }
}

/** 0 where there is no such file. */
async function bytesOf(path: string): Promise<number> {
  const found = await stat(path).catch(() => null);
  return found?.isFile() ? found.size : 0;
}

/** Fetches until the file is there with the right hash; a wrong one is fetched once again. */
async function fill(
  client: HubClient,
  source: BlobSource,
  partial: Partial,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const { file } = source;
  for (let round = 0; ; round++) {
    onBytes(partial.bytes);
    await fetchRest(client, source, partial, onBytes);
    if (partial.isRight()) return await partial.sync();
    await partial.restart();
    const what = `${source.wanted.id}: ${escaped(file.name, 200)}`;
    if (round === 1) {
      await rm(partial.path, { force: true });
      throw refusal(
        `${what} arrived twice with another hash than the hub's list says; the network or a ` +
          "mirror changes files on the way, so nothing was kept.",
      );
    }
    client.say(`${what} arrived damaged (its hash is wrong); fetching it again.`);
  }
}

/** What is known of the server that gives the bytes, between one request and the next. */
interface Known {
  /** The name of the content there; null before the first answer, or where it has none. */
  etag: string | null;
  /** False for a server that answers with other parts than those asked for. */
  givesParts: boolean;
  restarts: number;
  /**
   * The length of the next part; null: all the rest. Where a connection breaks, Bun drops what the
   * program has not read yet (up to some 500 kB), so short parts are asked for where nothing came.
   */
  partBytes: number | null;
}

async function fetchRest(
  client: HubClient,
  source: BlobSource,
  partial: Partial,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const retries = new Retries(client);
  const known: Known = { etag: null, givesParts: true, restarts: 0, partBytes: null };
  while (partial.bytes < source.file.bytes) {
    const before = partial.bytes;
    try {
      await fetchPart(client, source, partial, known, onBytes);
      if (known.partBytes !== null) known.partBytes *= 2;
    } catch (error) {
      if (partial.bytes > before) retries.reset();
      else known.partBytes = Math.max(partBytesMin, (known.partBytes ?? partBytesFirst) / 4);
      await retries.after(error);
    }
  }
}

/** One request: from the first missing byte to the end, or to where the connection breaks. */
async function fetchPart(
  client: HubClient,
  source: BlobSource,
  partial: Partial,
  known: Known,
  onBytes: (bytes: number) => void,
): Promise<void> {
  const { file, url, wanted } = source;
  if (partial.bytes > 0 && !known.givesParts) await partial.restart();
  const first = partial.bytes;
  const headers: Record<string, string> = {};
  const last = known.partBytes === null ? "" : first + known.partBytes - 1;
  if (known.givesParts && (first > 0 || known.partBytes !== null)) {
    headers.range = `bytes=${first}-${last}`;
    if (known.etag !== null && first > 0) headers["if-range"] = known.etag;
  }
  const transfer = await openTransfer(client, url, wanted, headers, [416]);
  try {
    checkAnswer(transfer, client, source, known);
    if (!isRest(transfer, first, file.bytes, known)) {
      await beginAgain(partial, known, source);
      // A whole file is an answer to any request; another part is none.
      if (transfer.status !== 200) return;
    }
    for await (const chunk of transfer.chunks()) {
      if (partial.bytes + chunk.length > file.bytes) throw tooLong(source);
      await partial.append(chunk);
      onBytes(partial.bytes);
    }
  } finally {
    transfer.close();
  }
  if (partial.bytes === first) throw new Interrupted(nothingCame(source));
}

/** Refuses answers that cannot be this content. */
function checkAnswer(
  { status, headers, linkedEtag }: Transfer,
  { settings }: HubClient,
  source: BlobSource,
  known: Known,
): void {
  const { file, wanted } = source;
  const { host } = new URL(settings.endpoint);
  const name = escaped(file.name, 200);
  if (/^text\/html\b/i.test(headers.get("content-type") ?? "") && !/\.html?$/i.test(file.name)) {
    throw webPageRefusal(host, `${wanted.id}:${name}`);
  }
  const length = Number(headers.get("content-length") ?? 0);
  if (status === 200 && length > file.bytes) throw tooLong(source);
  if (linkedEtag !== null && bare(linkedEtag) !== file.etag) {
    known.restarts++;
    const changed = refusal(
      `${wanted.id}: ${name} is another file at ${host} than its list says; run it again later.`,
    );
    throw known.restarts < restartsMax ? new Interrupted(changed) : changed;
  }
}

/** Whether the answer begins at byte `first` of the content that the earlier ones were of. */
function isRest({ status, headers }: Transfer, first: number, bytes: number, known: Known) {
  const etag = headers.get("etag");
  const strong = etag !== null && !etag.startsWith("W/") ? etag : null;
  const isSame = known.etag === null || strong === null || strong === known.etag;
  known.etag = strong ?? known.etag;
  if (status === 200) return first === 0;
  if (status === 206) {
    const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(headers.get("content-range") ?? "");
    const [, from, , total] = range ?? [];
    const isAsked = Number(from) === first && (total === "*" || Number(total) === bytes);
    if (!isAsked) known.givesParts = false;
    return isAsked && isSame;
  }
  return false;
}

/** Throws away what is there, for the answer is not its rest. */
async function beginAgain(partial: Partial, known: Known, { file, wanted }: BlobSource) {
  await partial.restart();
  known.restarts++;
  if (known.restarts < restartsMax) return;
  throw refusal(
    `${wanted.id}: ${escaped(file.name, 200)} changes while it is fetched; run it again later.`,
  );
}

function tooLong({ file, wanted }: BlobSource): BasedXLError {
  const name = `${wanted.id}: ${escaped(file.name, 200)}`;
  return refusal(`${name} is longer than the ${file.bytes} bytes of the hub's list; try later.`);
}

function nothingCame({ file, wanted }: BlobSource): BasedXLError {
  const name = `${wanted.id}: ${escaped(file.name, 200)}`;
  return refusal(`The answers for ${name} are empty; try again later.`);
}

/** An etag without quotes and weakness. */
function bare(etag: string): string {
  return etag.replace(/^W\//, "").replaceAll('"', "");
}
