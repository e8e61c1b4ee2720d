/**
 * Chooses the folder a binary extracts to: one per version, private to this user (mode 0700), on a
 * disk that is not mounted noexec. Code is loaded from it, so a folder that other users could write
 * to is never used.
 */
import {
  accessSync,
  chmodSync,
  constants,
  lstatSync,
  mkdirSync,
  readdirSync,
  realpathSync,
  rmSync,
  type Stats,
  writeFileSync,
} from "node:fs";
import { homedir, tmpdir } from "node:os";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { BasedXLError } from "../errors.ts";
import { expandHome } from "../paths.ts";
import type { CacheReport } from "./contents.ts";

export const cacheVariable = "BASEDXL_CACHE_DIR";

type Env = Record<string, string | undefined>;

/**
 * Candidates for the folder, best first: the variable's value alone if it is set, else the user's
 * cache folder, else one for this user in the temporary folder.
 */
export function cacheCandidates(env: Env = process.env, home = homeFolder()): string[] {
  const named = env[cacheVariable];
  if (named) return [expandHome(named)];
  const candidates: string[] = [];
  const xdg = env.XDG_CACHE_HOME;
  if (xdg && isAbsolute(xdg)) candidates.push(join(xdg, "basedxl"));
  const usual = process.platform === "darwin" ? "Library/Caches" : ".cache";
  if (home && isAbsolute(home) && home !== "/") candidates.push(join(home, usual, "basedxl"));
  candidates.push(join(tmpdir(), `basedxl-${process.getuid?.() ?? 0}`));
  return candidates;
}

/**
 * Creates the folder `version` in the first usable folder of `candidates` and returns its path.
 * Throws "setup" with the reason for each candidate.
 */
export function openCache(candidates: readonly string[], version: string): string {
  const reasons: string[] = [];
  for (const name of candidates) {
    const candidate = resolve(name);
    const folder = join(candidate, version);
    try {
      makePrivate(candidate);
      makePrivate(folder);
      checkRuns(folder);
      return folder;
    } catch (error) {
      reasons.push(`${candidate} (${reasonOf(error)})`);
    }
  }
  throw new BasedXLError(
    "setup",
    `No folder can hold the files that the program loads: ${reasons.join(", ")}. Set \
${cacheVariable} to a folder of yours that is writable and not mounted noexec.`,
  );
}

/** The first usable folder of `candidates`, for files that are not code; null where none is. */
export function openFolder(candidates: readonly string[] = cacheCandidates()): string | null {
  for (const name of candidates) {
    try {
      const folder = resolve(name);
      makePrivate(folder);
      return folder;
    } catch {}
  }
  return null;
}

/** The state of the cache, for `doctor`; extracts nothing. */
export function describeCache(candidates: readonly string[], version: string): CacheReport {
  try {
    const path = openCache(candidates, version);
    const above = join(path, "..");
    const others = readdirSync(above, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && entry.name !== version)
      .map(({ name }) => name);
    return {
      path,
      problem: null,
      bytes: filesBelow(path).reduce((sum, file) => sum + lstatSync(file).size, 0),
      others: others.map((name) => join(above, name)),
    };
  } catch (error) {
    if (!(error instanceof BasedXLError)) throw error;
    return { path: null, problem: error.message, bytes: 0, others: [] };
  }
}

// --- internal ---

const privateMode = 0o700;

/** "" for a user that the system does not know and without HOME, as in a bare container. */
function homeFolder(): string {
  try {
    return homedir();
  } catch {
    return "";
  }
}

/** Creates `folder` if missing. Throws where that fails or other users could write to it. */
function makePrivate(folder: string): void {
  mkdirSync(folder, { recursive: true, mode: privateMode });
  for (const place of new Set([dirname(folder), realpathSync(dirname(folder))])) checkAbove(place);
  const stat = lstatSync(folder);
  if (!stat.isDirectory()) throw new Error("it is a link or a file, not a folder");
  const me = process.getuid?.();
  if (me !== undefined && stat.uid !== me) throw new Error("it belongs to another user");
  if ((stat.mode & 0o777) !== privateMode) chmodSync(folder, privateMode);
}

/**
 * Throws where another user could replace `folder` or a folder above it between the check of a file
 * and its use. Each must belong to this user or to the system, and must not be writable by others
 * unless it is sticky (/tmp): in a sticky folder only the owner can rename an entry.
 */
function checkAbove(folder: string): void {
  const stat = lstatSync(folder);
  const owners = [0, process.getuid?.(), lstatSync("/").uid];
  if (!owners.includes(stat.uid)) throw new Error(`${folder} above it belongs to another user`);
  if (!stat.isSymbolicLink() && mayOthersWrite(stat)) {
    throw new Error(`other users may write to ${folder} above it`);
  }
  if (dirname(folder) !== folder) checkAbove(dirname(folder));
}

function mayOthersWrite({ mode, gid }: Stats): boolean {
  const isSticky = (mode & 0o1000) !== 0;
  // Systems with a private group per user (same number) often use umask 002.
  const hasOwnGroup = gid === 0 || (gid === process.getgid?.() && gid === process.getuid?.());
  return !isSticky && ((mode & 0o002) !== 0 || ((mode & 0o020) !== 0 && !hasOwnGroup));
}

/**
 * Throws where `folder` is mounted noexec, or where it is empty and not writable. Files that are
 * already extracted stay usable on a full or read-only disk.
 */
function checkRuns(folder: string): void {
  const [there] = filesBelow(folder);
  if (there !== undefined) {
    checkExecutable(there);
    return;
  }
  const probe = join(folder, `.probe-${crypto.randomUUID()}`);
  try {
    writeFileSync(probe, "", { mode: privateMode, flag: "wx" });
    checkExecutable(probe);
  } finally {
    rmSync(probe, { force: true });
  }
}

function checkExecutable(path: string): void {
  try {
    accessSync(path, constants.X_OK);
  } catch {
    throw new Error("its disk is mounted noexec, so no library can be loaded from it");
  }
}

function reasonOf(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  return (code && reasons[code]) || message;
}

const reasons: Record<string, string> = {
  EACCES: "no permission to write there",
  EPERM: "no permission to write there",
  EROFS: "it is on a read-only disk",
  ENOSPC: "the disk is full",
  EDQUOT: "the quota is used up",
  ENOTDIR: "a folder above it is a file",
  EEXIST: "it is a file, not a folder",
};

/** The extracted files, without partial files and other processes' probes. */
function filesBelow(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && !/^\.probe-|\.part$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name));
}
