/**
 * Atomic writes: the bytes go to a temporary file in the same folder, which is then renamed over
 * the old file. Never write a result directly to its final name.
 */
import {
  accessSync,
  constants,
  lstatSync,
  readlinkSync,
  realpathSync,
  type Stats,
  statSync,
} from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { basename, dirname, isAbsolute, join } from "node:path";
import { BasedXLError, stopIfAborted } from "../errors.ts";
import { absolutePath } from "../paths.ts";

/** Names of files that a program left which was killed while it wrote. */
export const temporaryFile = /^\.basedxl-[0-9a-f-]{36}\.tmp$/;

/**
 * Checks that a file can be written at `path`, without touching it, and returns its final path:
 * links are followed to the last target, which need not exist. Call it before long work. Throws
 * "io" when the folder is missing or not writable, or when `path` is not a writable file.
 */
export function checkWritable(path: string): string {
  return placeOf(path).target;
}

/**
 * Replaces the file at `path` by `bytes` atomically: a reader sees the old file or the new one,
 * also after a crash. Mode and owner stay those of the old file. Throws "io" with the system's
 * reason, or "cancelled", and leaves no temporary file.
 */
export async function writeWhole(
  path: string,
  bytes: Uint8Array,
  signal?: AbortSignal,
): Promise<void> {
  const { target, replaced } = placeOf(path);
  const temporary = join(dirname(target), `.basedxl-${crypto.randomUUID()}.tmp`);
  try {
    // Unreadable for others: it may replace a private file, whose mode it gets later.
    const file = await open(temporary, "wx", replaced ? 0o600 : 0o666);
    try {
      await file.writeFile(bytes);
      if (replaced) await takeOver(file, replaced);
      // Flush before the rename: otherwise a power failure could leave an empty file at the final
      // name.
      await file.sync();
    } finally {
      await file.close();
    }
    stopIfAborted(signal);
    await rename(temporary, target);
  } catch (error) {
    await rm(temporary, { force: true });
    if (error instanceof BasedXLError) throw error;
    throw cannotWrite(path, (error as Error).message);
  }
}

// --- internal ---

interface Place {
  target: string;
  /** The existing file at `target`, undefined where there is none. */
  replaced: Stats | undefined;
}

function placeOf(path: string): Place {
  const named = absolutePath(path);
  checkFolder(path, dirname(named));
  if (path === "" || /[/\\]$/.test(path)) throw isFolder(path);
  const found = statAt(path, named);
  if (found?.isDirectory()) throw isFolder(path);
  // A pipe or a device cannot be replaced by a whole file without losing it.
  if (found && !found.isFile()) throw cannotWrite(path, `${kindOf(found)} is there already`);
  const target = behindLinks(path, named);
  const folder = dirname(target);
  if (!mayWrite(folder, constants.W_OK | constants.X_OK)) {
    throw cannotWrite(path, `the folder ${folder} is not writable`);
  }
  // The rename would replace a write-protected file all the same.
  if (found && !mayWrite(target, constants.W_OK)) {
    throw cannotWrite(path, "the file that is there is write-protected");
  }
  if (found && isKeptFrom(found, statSync(folder))) {
    throw cannotWrite(path, "the file that is there belongs to another user");
  }
  return { target, replaced: found };
}

/** In a sticky folder (/tmp), only the owner of a file or of the folder may replace the file. */
function isKeptFrom(file: Stats, folder: Stats): boolean {
  const me = process.geteuid?.() ?? 0;
  return (folder.mode & 0o1000) !== 0 && me !== 0 && me !== file.uid && me !== folder.uid;
}

/** Linux's own limit. */
const linkCountMax = 40;

/** Resolves links: `named` itself, or the target of its last link, which need not exist. */
function behindLinks(path: string, named: string): string {
  let at = named;
  for (let count = 0; count <= linkCountMax; count++) {
    const folder = dirname(at);
    checkFolder(path, folder);
    const place = join(realFolder(path, folder), basename(at));
    if (!isLink(path, place)) return place;
    const next = readlinkSync(place);
    if (/[/\\]$/.test(next)) throw isFolder(path);
    // Not `join`: it would remove `..` even where the folder before it is a link.
    at = isAbsolute(next) ? next : `${dirname(place)}/${next}`;
  }
  throw cannotWrite(path, "it is a chain of too many links");
}

function realFolder(path: string, folder: string): string {
  try {
    return realpathSync.native(folder);
  } catch (error) {
    throw cannotWrite(path, (error as Error).message);
  }
}

function isLink(path: string, place: string): boolean {
  try {
    return lstatSync(place, { throwIfNoEntry: false })?.isSymbolicLink() ?? false;
  } catch (error) {
    throw cannotWrite(path, (error as Error).message);
  }
}

function kindOf(stat: Stats): string {
  if (stat.isFIFO()) return "a pipe";
  if (stat.isSocket()) return "a socket";
  return "a device";
}

/** Gives the new file the owner and the mode of the file that it replaces. */
async function takeOver(file: FileHandle, replaced: Stats): Promise<void> {
  const { uid, gid, mode } = replaced;
  const made = await file.stat();
  if (made.uid !== uid || made.gid !== gid) {
    // Only root may change the owner; a member of the group may at least set the group.
    await file.chown(uid, gid).catch(() => file.chown(made.uid, gid).catch(() => {}));
  }
  // Set the mode last, since a change of owner clears bits of the mode.
  await file.chmod(mode & 0o7777);
}

function isFolder(path: string): BasedXLError {
  return cannotWrite(path || '""', "it is a folder; name a file in it");
}

function cannotWrite(path: string, why: string): BasedXLError {
  return new BasedXLError("io", `Cannot write ${path}: ${why}.`);
}

function checkFolder(path: string, folder: string): void {
  const stat = statAt(path, folder);
  if (!stat) throw cannotWrite(path, `the folder ${folder} does not exist`);
  if (!stat.isDirectory()) throw cannotWrite(path, `${folder} is a file, not a folder`);
}

function mayWrite(path: string, mode: number): boolean {
  try {
    accessSync(path, mode);
    return true;
  } catch {
    return false;
  }
}

/**
 * The stat of `place`, undefined where nothing exists. Other errors (name too long, no permission)
 * are thrown as "io" with the system's reason.
 */
function statAt(path: string, place: string) {
  try {
    return statSync(place, { throwIfNoEntry: false });
  } catch (error) {
    throw cannotWrite(path, (error as Error).message);
  }
}
