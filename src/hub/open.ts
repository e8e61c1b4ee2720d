/**
 * Opens a model of the hub: from the cache where it is whole there, without a request; else it is
 * fetched, some files at a time, and linked when all are there. The commit's record and the
 * branch's ref are written last, so that nothing half looks whole.
 */
import { readFileSync, statfsSync } from "node:fs";
import { BasedXLError, escaped, stopIfAborted } from "../errors.ts";
import { formatBytes } from "../terminal/units.ts";
import { fetchBlob } from "./blob.ts";
import { cacheError, type HubUse, RepositoryCache } from "./cache.ts";
import {
  type CachedModel,
  findCached,
  findCachedFolder,
  findOnlyFile,
  shardNames,
} from "./cached.ts";
import {
  type Choice,
  type ChoiceHelp,
  chooseFiles,
  chooseFolder,
  type WantedFolder,
} from "./choose.ts";
import type { HubClient } from "./http.ts";
import { type HubFile, type Listing, listRepository } from "./listing.ts";
import type { DownloadedFile, DownloadProgress } from "./progress.ts";
import { type HubReference, showReference } from "./reference.ts";
import { refusal } from "./refusals.ts";
import { type HubSettings, hubSettings } from "./settings.ts";

export interface HubOptions {
  /** Default: by the variables of huggingface_hub. */
  settings?: HubSettings | undefined;
  /** Stops the download, which throws "cancelled"; what has arrived stays. */
  signal?: AbortSignal | undefined;
  /** Called as bytes arrive, often. */
  onDownload?: ((progress: DownloadProgress) => void) | undefined;
  /** Called with a sentence: where the model comes from, and what takes long. */
  onLine?: ((line: string) => void) | undefined;
  /** True: asks the hub what the revision means now, also where it is in the cache. */
  refresh?: boolean | undefined;
}

export interface OpenedModel extends CachedModel {
  /** Files and bytes of the model that it needs; 0 where nothing was asked for. */
  files: number;
  bytes: number;
  fetchedBytes: number;
  /** False: the hub was not asked, or did not answer. */
  isFresh: boolean;
}

/**
 * What `reference` names, for `use`. Throws "download" with what helps, "io" where the cache cannot
 * be written, "cancelled".
 */
export async function openHub(
  reference: HubReference,
  use: HubUse,
  options: HubOptions = {},
): Promise<OpenedModel> {
  const { settings = hubSettings(), signal, onLine: say = () => {}, refresh = false } = options;
  const { cacheFolder, offline } = settings;
  const found = findCached(reference, use, cacheFolder);
  if (found !== null && (!refresh || offline)) return keptOf(found);
  const likely = found ?? findOnlyFile(reference, cacheFolder);
  const shown = escaped(showReference(reference), 300);
  if (offline) {
    if (likely !== null) return keptOf(likely);
    throw refusal(
      `${shown} is not whole in ${cacheFolder}, and HF_HUB_OFFLINE forbids to fetch it: ` +
        "unset HF_HUB_OFFLINE, or name another cache in HF_HUB_CACHE.",
    );
  }
  const client: HubClient = { settings, signal, say };
  let listing: Listing;
  try {
    listing = await listRepository(client, reference.id, reference.revision ?? "main");
  } catch (error) {
    stopIfAborted(signal);
    if (likely === null || !(error instanceof BasedXLError)) throw error;
    say(`${error.message} Using ${shown} as it was last fetched.`);
    return keptOf(likely);
  }
  const download = new Download(client, reference, listing, options.onDownload);
  const choice = await chooseFiles(reference, use, listing, download.help);
  const isLinked = ({ commit }: Listing) =>
    findCached({ ...reference, revision: commit }, use, cacheFolder) !== null;
  return await download.run(choice, { use, isLinked: isLinked(listing) });
}

/**
 * The folder that is wanted of the repository of `reference`, by its config; null where there is
 * none, and where it may not be fetched. Throws as `openHub`.
 */
export async function openHubFolder(
  reference: HubReference,
  wanted: WantedFolder,
  { settings = hubSettings(), signal, onLine: say = () => {}, onDownload }: HubOptions = {},
): Promise<CachedModel | null> {
  const { cacheFolder, offline } = settings;
  const found = findCachedFolder(reference, wanted, cacheFolder);
  if (found !== null || offline) return found;
  const client: HubClient = { settings, signal, say };
  const listing = await listRepository(client, reference.id, reference.revision ?? "main");
  const download = new Download(client, reference, listing, onDownload);
  const choice = await chooseFolder(reference, wanted, listing, download.help);
  return choice && (await download.run(choice, { use: null, isLinked: false }));
}

// --- internal ---

/** Files that are fetched side by side. */
const sideBySide = 4;
/** An index of shards has some hundred kB, CLIP's largest file 4 MB. */
const textBytesMax = 64 << 20;
/** Links, folders and the blocks that files end in. */
const spareBytes = 16 << 20;

function keptOf(found: CachedModel): OpenedModel {
  return { ...found, files: 0, bytes: 0, fetchedBytes: 0, isFresh: false };
}

class Download {
  private readonly cache: RepositoryCache;
  private readonly controller = new AbortController();
  private readonly client: HubClient;
  private readonly shown: string;
  private progress: DownloadProgress;

  constructor(
    client: HubClient,
    private readonly reference: HubReference,
    private readonly listing: Listing,
    private readonly onDownload: ((progress: DownloadProgress) => void) | undefined,
  ) {
    const { signal } = this.controller;
    const both = client.signal ? AbortSignal.any([client.signal, signal]) : signal;
    this.client = { ...client, signal: both };
    this.cache = new RepositoryCache(client.settings.cacheFolder, reference.id);
    this.shown = escaped(showReference(reference), 300);
    this.progress = { what: this.shown, files: [], bytes: 0, doneBytes: 0, fetchedBytes: 0 };
  }

  /** For the choice of files. */
  get help(): ChoiceHelp {
    return {
      isHere: (file) => this.isHere(file),
      shardsOf: (index) => this.shardsOf(index),
      jsonOf: (config) => this.jsonOf(config),
    };
  }

  /** Fetches and links what was chosen; `use` null is not recorded. */
  async run(
    choice: Choice,
    { use, isLinked }: { use: HubUse | null; isLinked: boolean },
  ): Promise<OpenedModel> {
    const { cache, listing, reference } = this;
    for (const { name, bytes } of choice.files) {
      if (bytes <= textBytesMax || name.endsWith(".safetensors")) continue;
      throw refusal(
        `${reference.id}: ${escaped(name, 200)} has ${formatBytes(bytes)}, too much for a config ` +
          "or a vocabulary; choose another revision.",
      );
    }
    const { commit } = listing;
    const names = choice.files.map(({ name }) => name);
    const opened = {
      path: `${cache.snapshot(commit)}${choice.path === "" ? "" : `/${choice.path}`}`,
      commit,
      files: choice.files.length,
      bytes: choice.files.reduce((sum, { bytes }) => sum + bytes, 0),
      isFresh: true,
    };
    await this.fetchAll(choice);
    // A cache that cannot be written to may hold everything already.
    if (!isLinked) {
      cache.link(commit, choice.files);
      const isRecorded = use !== null && reference.file === undefined;
      if (isRecorded) cache.record(commit, use, choice.path, names);
    }
    cache.writeRef(reference.revision ?? "main", commit);
    return { ...opened, fetchedBytes: this.progress.fetchedBytes };
  }

  private isHere({ etag, bytes }: HubFile): boolean {
    return this.cache.hasBlob(etag, bytes);
  }

  private async fetchAll({ files }: Choice): Promise<void> {
    const { cache, reference } = this;
    const missing = files.filter(({ etag, bytes }) => !cache.hasBlob(etag, bytes));
    if (missing.length === 0) return;
    cache.prepare();
    const contents = [...new Map(missing.map((file) => [file.etag, file])).values()];
    const bytes = contents.reduce((sum, file) => sum + file.bytes, 0);
    const there = contents.reduce((sum, { etag }) => sum + cache.bytesThere(etag), 0);
    this.checkDisk(bytes - there);
    const begun = there > 0 ? `, of which ${formatBytes(there)} are there` : "";
    this.client.say(
      `Fetching ${this.shown} to ${cache.cacheFolder}: ${countOf(contents.length, "file")}, ` +
        `${formatBytes(bytes)}${begun}.`,
    );
    const shown = contents.map((file) => ({ name: file.name, bytes: file.bytes, doneBytes: 0 }));
    this.progress = { ...this.progress, files: shown, bytes, doneBytes: 0 };
    await this.sideBySide(contents, shown);
    if (this.progress.fetchedBytes > 0) {
      this.client.say(`Fetched ${reference.id}: ${formatBytes(this.progress.fetchedBytes)}.`);
    }
  }

  /** The first failure stops the others; what has arrived of them stays. */
  private async sideBySide(files: HubFile[], shown: DownloadedFile[]): Promise<void> {
    let next = 0;
    let failure: unknown = null;
    const work = async () => {
      for (let index = next++; index < files.length && failure === null; index = next++) {
        try {
          await this.fetchOne(files[index]!, shown[index]);
        } catch (error) {
          failure ??= error;
          this.controller.abort();
        }
      }
    };
    await Promise.all(Array.from({ length: sideBySide }, work));
    if (failure !== null) throw failure;
  }

  private async fetchOne(file: HubFile, shown?: DownloadedFile): Promise<void> {
    const { cache, client, listing, progress, reference } = this;
    const path = file.name.split("/").map(encodeURIComponent).join("/");
    const url = `${client.settings.endpoint}/${reference.id}/resolve/${listing.commit}/${path}`;
    const wanted = { id: reference.id, revision: listing.commit, file: file.name };
    let before: number | null = null;
    await fetchBlob(client, cache, { file, url, wanted }, (bytes) => {
      const more = bytes - (before ?? bytes);
      if (more > 0) progress.fetchedBytes += more;
      progress.doneBytes += bytes - (before ?? 0);
      before = bytes;
      if (shown === undefined) return;
      shown.doneBytes = bytes;
      this.onDownload?.(this.progress);
    });
  }

  private async shardsOf(index: HubFile): Promise<string[]> {
    const names = shardNames(await this.jsonOf(index));
    if (names.length > 0) return names;
    const name = `${this.reference.id}: ${escaped(index.name, 200)}`;
    throw refusal(`${name} names no shards beside it; choose another revision.`);
  }

  /** A file of the model: it goes into the cache, and is read there. */
  private async jsonOf(file: HubFile): Promise<unknown> {
    const { cache, reference } = this;
    if (file.bytes > textBytesMax) {
      throw refusal(`${reference.id}: ${escaped(file.name, 200)} is too long for a config.`);
    }
    if (!this.isHere(file)) {
      cache.prepare();
      await this.fetchOne(file);
    }
    try {
      return JSON.parse(readFileSync(cache.blob(file.etag), "utf8"));
    } catch {
      // No JSON: as one that says nothing.
      return null;
    }
  }

  private checkDisk(bytes: number): void {
    const { cacheFolder } = this.cache;
    let free: number;
    try {
      const { bavail, bsize } = statfsSync(cacheFolder);
      free = bavail * bsize;
    } catch (error) {
      throw cacheError(error, cacheFolder, cacheFolder);
    }
    if (bytes + spareBytes <= free) return;
    throw new BasedXLError(
      "io",
      `${this.shown} needs ${formatBytes(bytes)} more in ${cacheFolder}, which has ` +
        `${formatBytes(free)} free: free some space, or set HF_HOME to a folder on another disk.`,
    );
  }
}

function countOf(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
