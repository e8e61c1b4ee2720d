/**
 * What a repository holds at a revision, by @huggingface/hub. The package serves for this alone:
 * its downloader begins at byte 0 and knows no progress, and its errors carry no advice. It brings
 * 42 kB into the binary; the requests themselves go through `http.ts`, which adds the token and
 * limits what an answer may be. Everything that comes back is checked before it names a file here.
 */
import { listFiles, modelInfo } from "@huggingface/hub";
import { BasedXLError } from "../errors.ts";
import { type HubClient, jsonFetch } from "./http.ts";
import { isCommit, isFileName } from "./reference.ts";
import { refusal, webPageRefusal } from "./refusals.ts";

export interface HubFile {
  /** Path in the repository, with slashes. */
  name: string;
  bytes: number;
  /** The name of its content: sha256 for large files, else git's hash of a blob. */
  etag: string;
  /** True: stored by Git LFS or Xet, and named by its sha256. */
  isLfs: boolean;
}

export interface Listing {
  commit: string;
  files: ReadonlyMap<string, HubFile>;
}

/** Asks the hub. Throws "download" with what helps, and `Interrupted`'s refusal after attempts. */
export async function listRepository(
  client: HubClient,
  id: string,
  revision: string,
): Promise<Listing> {
  const hubUrl = client.settings.endpoint;
  const nextPage = jsonFetch(client, { id, revision }, jsonBytesMax);
  let pageCount = 0;
  const fetch = (async (url: string) => {
    pageCount += 1;
    if (pageCount > pagesMax) throw refusal(`The list of ${id} has more than ${pagesMax} pages.`);
    return await nextPage(url);
  }) as typeof globalThis.fetch;
  const asked = { name: id, revision, additionalFields: ["sha" as const], hubUrl, fetch };
  const commit = isCommit(revision) ? revision : (await parsed(hubUrl, modelInfo(asked))).sha;
  if (typeof commit !== "string" || !isCommit(commit)) {
    throw refusal(`${hubUrl} names no commit for ${id}@${revision}; is HF_ENDPOINT a hub?`);
  }
  const files = new Map<string, HubFile>();
  const repo = { type: "model" as const, name: id };
  const entries = listFiles({ repo, revision: commit, recursive: true, hubUrl, fetch });
  for (;;) {
    const { done, value } = await parsed(hubUrl, entries.next());
    if (done) return { commit, files };
    if (value && value.type !== "file") continue;
    const file = checkedFile(value, id);
    files.set(file.name, file);
    if (files.size > filesMax) throw refusal(`${id} has more than ${filesMax} files.`);
  }
}

// --- internal ---

const jsonBytesMax = 64 << 20;
const filesMax = 100_000;
/** The hub gives 1,000 files on a page. A list whose pages are empty would never end. */
const pagesMax = 1_000;

/** What the package makes of an answer; what it cannot make sense of is no answer of a hub. */
async function parsed<T>(endpoint: string, answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof BasedXLError) throw error;
    throw webPageRefusal(new URL(endpoint).host, "a list of files");
  }
}

/** Throws where a name would lead out of the cache, or a size or hash is none. */
function checkedFile(entry: unknown, id: string): HubFile {
  const { path, size, oid, lfs } = (entry ?? {}) as Record<string, unknown>;
  const { oid: lfsOid, size: lfsSize } = (lfs ?? {}) as Record<string, unknown>;
  const isLfs = lfsOid !== undefined;
  const etag = isLfs ? lfsOid : oid;
  const bytes = isLfs ? (lfsSize ?? size) : size;
  if (typeof path !== "string" || !isFileName(path)) {
    throw refusal(`${id} lists a file name that could lead out of the cache; it is not fetched.`);
  }
  const isHash =
    typeof etag === "string" && (isLfs ? /^[0-9a-f]{64}$/ : /^[0-9a-f]{40}$/).test(etag);
  if (!isHash || !Number.isSafeInteger(bytes) || (bytes as number) < 0) {
    throw refusal(`${id} lists ${path} without a size or a hash that could be checked.`);
  }
  return { name: path, bytes: bytes as number, etag: etag as string, isLfs };
}
