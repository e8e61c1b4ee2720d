/**
 * Extracts files from the binary. Every start checks their hashes. A missing or changed file is
 * written under a temporary name and renamed: two processes that start at once write the same
 * bytes, and neither sees a partial file.
 */
import {
  closeSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { BasedXLError } from "../errors.ts";
import { cacheVariable } from "./cache.ts";
import type { Contents, EmbeddedFile } from "./contents.ts";

/** The folder name for exactly these files: version and hash, so each build has its own. */
export function versionName({ files, versions }: Pick<Contents, "files" | "versions">): string {
  const hash = new Bun.CryptoHasher("sha256");
  for (const { name, sha256 } of files) hash.update(`${name}\0${sha256}\0`);
  return `${versions.basedxl}-${hash.digest("hex").slice(0, 16)}`;
}

/** Extracts `files` to `folder`, each atomically. Throws "setup" with the system's reason. */
export function extract(folder: string, files: readonly EmbeddedFile[]): void {
  const missing = files.filter((file) => !isWhole(folder, file));
  if (missing.length === 0) return;
  removeLeftovers(folder);
  for (const file of missing) {
    try {
      writeFile(folder, file.name, contentsOf(file));
    } catch (error) {
      if (error instanceof BasedXLError) throw error;
      throw cannotExtract(folder, missing, error as NodeJS.ErrnoException);
    }
  }
}

// --- internal ---

const leftoverEnding = ".part";
/** Of the files by which cache.ts finds out whether a folder can be used, too. */
const leftoverName = /^\.probe-|\.part$/;
/** A partial file that another process still writes is younger. */
const leftoverAgeMs = 10 * 60 * 1000;

function isWhole(folder: string, { name, bytes, sha256 }: EmbeddedFile): boolean {
  try {
    if (obstacleOf(folder, name) !== null) return false;
    const path = join(folder, name);
    // Compare the size first: it detects most damage without reading.
    return statSync(path).size === bytes && sha256Of(readFileSync(path)) === sha256;
  } catch {
    return false;
  }
}

function contentsOf({ name, source, sha256 }: EmbeddedFile): Uint8Array {
  const contents = readFileSync(source);
  if (sha256Of(contents) === sha256) return contents;
  throw new BasedXLError("setup", `The program file is damaged (at ${name}): get it again.`);
}

function sha256Of(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}

function writeFile(folder: string, name: string, contents: Uint8Array): void {
  const path = join(folder, name);
  // Safe to remove: the cache folder contains only files of this version.
  const obstacle = obstacleOf(folder, name);
  if (obstacle !== null) rmSync(obstacle, { recursive: true, force: true });
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const part = `${path}.${crypto.randomUUID()}${leftoverEnding}`;
  try {
    const file = openSync(part, "wx", 0o700);
    try {
      for (let at = 0; at < contents.length; ) at += writeSync(file, contents, at);
      // Flush before the rename: after a power failure the name must not refer to a partial file.
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(part, path);
  } catch (error) {
    rmSync(part, { force: true });
    throw error;
  }
}

/**
 * The path of an entry that blocks `name`: a link, or an entry of the wrong type, at `name` or at a
 * folder above it. Links are never followed, since other users may change their target. null where
 * nothing is in the way.
 */
function obstacleOf(folder: string, name: string): string | null {
  const parts = name.split("/");
  for (const [index] of parts.entries()) {
    const path = join(folder, ...parts.slice(0, index + 1));
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat === undefined) return null;
    const isLast = index === parts.length - 1;
    if (isLast ? !stat.isFile() : !stat.isDirectory()) return path;
  }
  return null;
}

/** Removes partial files that a killed process left behind. */
function removeLeftovers(folder: string): void {
  const limitMs = Date.now() - leftoverAgeMs;
  for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true })) {
    if (!entry.isFile() || !leftoverName.test(entry.name)) continue;
    const path = join(entry.parentPath, entry.name);
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat && stat.mtimeMs < limitMs) rmSync(path, { force: true });
  }
}

function cannotExtract(
  folder: string,
  files: readonly EmbeddedFile[],
  error: NodeJS.ErrnoException,
): BasedXLError {
  const megabytes = Math.ceil(files.reduce((sum, { bytes }) => sum + bytes, 0) / 1e6);
  const full = error.code === "ENOSPC" || error.code === "EDQUOT";
  const why = full ? "the disk is full" : error.message;
  return new BasedXLError(
    "setup",
    `Cannot extract the program's files to ${folder}: ${why}. ${megabytes} MB are needed there; \
make room, or set ${cacheVariable} to another folder.`,
  );
}
