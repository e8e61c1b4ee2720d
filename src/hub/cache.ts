/**
 * One repository in the cache of huggingface_hub: `blobs/ETAG` hold contents,
 * `snapshots/COMMIT/...` relative links to them, `refs/REVISION` the commit. Beside them lies a
 * record of ours, which says which files made a snapshot whole for which use: a snapshot without
 * one (Python's) is judged by what is in it.
 */
import {
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, relative } from "node:path";
import { BasedXLError, escaped } from "../errors.ts";
import { isCommit, isFileName } from "./reference.ts";

/** What a snapshot is wanted for; each use needs other files. */
export type HubUse = "model" | "vae" | "file";

/** A file of a snapshot and the name of its content. */
interface LinkedFile {
  name: string;
  etag: string;
}

export class RepositoryCache {
  readonly root: string;
  readonly locks: string;
  /** Ours in it: records, and what is not whole yet. */
  private readonly own: string;

  constructor(
    readonly cacheFolder: string,
    id: string,
  ) {
    const name = `models--${id.replaceAll("/", "--")}`;
    this.root = join(cacheFolder, name);
    this.locks = join(cacheFolder, ".locks", name);
    this.own = join(this.root, ".basedxl");
  }

  blob(etag: string): string {
    return join(this.root, "blobs", etag);
  }

  snapshot(commit: string): string {
    return join(this.root, "snapshots", commit);
  }

  /** The commit that `revision` meant when it was last fetched; null where it never was. */
  commitOf(revision: string): string | null {
    if (isCommit(revision)) return revision;
    try {
      const commit = readFileSync(join(this.root, "refs", revision), "utf8").trim();
      return isCommit(commit) ? commit : null;
    } catch {
      return null;
    }
  }

  /** Whether the content is there, by its name and size. */
  hasBlob(etag: string, bytes: number): boolean {
    return bytesOf(this.blob(etag)) === bytes;
  }

  /** Bytes of the content that are there already, whole or not. */
  bytesThere(etag: string): number {
    return bytesOf(this.blob(etag)) ?? bytesOf(`${this.blob(etag)}.incomplete`) ?? 0;
  }

  /** Where the files of `use` are: the path that its record names, if every file is there. */
  recorded(commit: string, use: HubUse): string | null {
    const record = this.readRecord(commit)[use];
    if (record === undefined) return null;
    const folder = this.snapshot(commit);
    const isWhole = record.files.every((name) => bytesOf(join(folder, name)) !== null);
    return isWhole ? join(folder, record.path) : null;
  }

  /** Makes the folders for contents and locks. Throws "io" where nothing can be written. */
  prepare(): void {
    this.writing(this.cacheFolder, () => {
      mkdirSync(join(this.root, "blobs"), { recursive: true });
      mkdirSync(this.locks, { recursive: true });
      removeLeftovers(this.own);
      const tag = join(this.cacheFolder, "CACHEDIR.TAG");
      if (!existsSync(tag)) writeFileSync(tag, cacheTag);
    });
  }

  /** Links contents, which must be there, into the snapshot. */
  link(commit: string, files: readonly LinkedFile[]): void {
    const folder = this.snapshot(commit);
    this.writing(folder, () => {
      for (const { name, etag } of files)
        linkFile(join(folder, name), this.blob(etag), this.fresh());
    });
  }

  /** Notes that `use` needs `files` and no other; `path` below the snapshot is what it opens. */
  record(commit: string, use: HubUse, path: string, files: readonly string[]): void {
    const target = this.recordPath(commit);
    const record = { ...this.readRecord(commit), [use]: { path, files } };
    this.writing(target, () => this.writeWhole(target, `${JSON.stringify(record)}\n`));
  }

  /** Lets `revision` mean `commit`: the last step, so that it never names half a snapshot. */
  writeRef(revision: string, commit: string): void {
    if (isCommit(revision) || this.commitOf(revision) === commit) return;
    const target = join(this.root, "refs", revision);
    this.writing(target, () => this.writeWhole(target, commit));
  }

  /** Runs `write`, with the system's refusals as sentences. */
  writing<T>(path: string, write: () => T): T {
    try {
      return write();
    } catch (error) {
      throw cacheError(error, path, this.cacheFolder);
    }
  }

  /** A new name for what is renamed when it is whole: Python takes no file there for one of its. */
  private fresh(): string {
    mkdirSync(this.own, { recursive: true });
    return join(this.own, `${crypto.randomUUID()}${partEnding}`);
  }

  private writeWhole(path: string, text: string): void {
    mkdirSync(dirname(path), { recursive: true });
    const fresh = this.fresh();
    try {
      writeFileSync(fresh, text, { flush: true });
      renameSync(fresh, path);
    } finally {
      rmSync(fresh, { force: true });
    }
  }

  private recordPath(commit: string): string {
    return join(this.own, `${commit}.json`);
  }

  private readRecord(commit: string): Partial<Record<HubUse, UseRecord>> {
    try {
      const record: unknown = JSON.parse(readFileSync(this.recordPath(commit), "utf8"));
      const entries = Object.entries(record as object).filter(([, use]) => isUseRecord(use));
      return Object.fromEntries(entries);
    } catch {
      return {};
    }
  }
}

/** The error for a failed write to the cache; other errors as they are. */
export function cacheError(error: unknown, path: string, cacheFolder: string): unknown {
  const { code, message } = error as NodeJS.ErrnoException;
  if (error instanceof BasedXLError || code === undefined) return error;
  if (code === "ENOSPC" || code === "EDQUOT") {
    const full = code === "ENOSPC" ? "The disk is full" : "The quota of the disk is used up";
    return new BasedXLError(
      "io",
      `${full} (${cacheFolder}): free some space and run it again, which goes on from there; or ` +
        "set HF_HOME to a folder on another disk.",
    );
  }
  return new BasedXLError(
    "io",
    `Cannot write ${escaped(path, 300)} (${reasons[code] ?? escaped(message, 200)}); set HF_HOME ` +
      "to a folder that can be written to.",
  );
}

// --- internal ---

interface UseRecord {
  path: string;
  files: string[];
}

const reasons: Record<string, string> = {
  EACCES: "no permission",
  EPERM: "no permission",
  EROFS: "a read-only disk",
  ENOTDIR: "a folder above it is a file",
  EEXIST: "a file is in its place",
};

/** As huggingface_hub writes it: backups leave such folders out. */
const cacheTag =
  "Signature: 8a477f597d28d172789f06886806bc55\n" +
  "# This file is a cache directory tag created by huggingface_hub.\n" +
  "# For information about cache directory tags, see:\n" +
  "#\thttps://bford.info/cachedir/\n";

function isUseRecord(use: unknown): use is UseRecord {
  const { path, files } = (use ?? {}) as Partial<UseRecord>;
  const isInside = (name: unknown) => typeof name === "string" && isFileName(name);
  return (path === "" || isInside(path)) && Array.isArray(files) && files.every(isInside);
}

/** The size of the file at `path`; null where there is none. */
function bytesOf(path: string): number | null {
  try {
    const stat = statSync(path, { throwIfNoEntry: false });
    return stat?.isFile() ? stat.size : null;
  } catch {
    return null;
  }
}

/** A relative link, as Python's; a copy where the file system has no links. */
function linkFile(path: string, blob: string, fresh: string): void {
  const target = relative(dirname(path), blob);
  mkdirSync(dirname(path), { recursive: true });
  try {
    if (readlinkSync(path) === target) return;
  } catch {
    // No link is there yet.
  }
  try {
    symlinkSync(target, fresh);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (!["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS"].includes(code ?? "")) throw error;
    copyFileSync(blob, fresh);
  }
  try {
    renameSync(fresh, path);
  } finally {
    rmSync(fresh, { force: true });
  }
}

const partEnding = ".part";
/** What another process still writes is younger. */
const leftoverAgeMs = 10 * 60 * 1000;

/** Removes what a killed process left. */
function removeLeftovers(folder: string): void {
  if (!existsSync(folder)) return;
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    const stat = name.endsWith(partEnding) && lstatSync(path, { throwIfNoEntry: false });
    if (stat && Date.now() - stat.mtimeMs > leftoverAgeMs) rmSync(path, { force: true });
  }
}
