/**
 * Writes whole files or nothing: the bytes go to a temporary name in the same folder, which then
 * takes the place of the old file in one rename. Never write a result straight to its own name.
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

/**
 * Checks that a file can be written at `path`, without touching it, and returns where it will lie:
 * behind links, that is what the last of them names, also where nothing is there yet. Call it
 * before long work. Throws "io" when the folder is missing or not writable, or when at `path` is
 * something else than a file that may be written.
 */
export function checkWritable(path: string): string {
  return placeOf(path).target;
}

/**
 * Replaces the file at `path` by `bytes`, whole: a reader sees the old file or the new one, also
 * after a crash. Mode and owner stay those of the old file. Throws "io" with the system's reason,
 * or "cancelled", and then leaves nothing behind.
 */
export async function writeWhole(
  path: string,
  bytes: Uint8Array,
  signal?: AbortSignal,
): Promise<void> {
  const { target, replaced } = placeOf(path);
  const temporary = join(dirname(target), `.basedxl-${crypto.randomUUID()}.tmp`);
  try {
    // Nobody reads what replaces a private file before it has that file's mode.
    const file = await open(temporary, "wx", replaced ? 0o600 : 0o666);
    try {
      await file.writeFile(bytes);
      if (replaced) await takeOver(file, replaced);
      // On the disk before the rename, or a power cut could leave an empty file with the right
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
  /** The file that is at `target`, undefined where nothing is. */
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
  // The rename would replace it all the same, and with it what its owner wanted to keep.
  if (found && !mayWrite(target, constants.W_OK)) {
    throw cannotWrite(path, "the file that is there is write-protected");
  }
  return { target, replaced: found };
}

/** As many as Linux follows. */
const linkCountMax = 40;

/** What `named` means: itself, or what the last link of its chain names, there or not. */
function behindLinks(path: string, named: string): string {
  let at = named;
  for (let count = 0; count <= linkCountMax; count++) {
    const folder = dirname(at);
    checkFolder(path, folder);
    const place = join(realpathSync.native(folder), basename(at));
    if (!isLink(path, place)) return place;
    const next = readlinkSync(place);
    if (/[/\\]$/.test(next)) throw isFolder(path);
    // Not `join`, which would take `..` away without looking whether a link stands before it.
    at = isAbsolute(next) ? next : `${dirname(place)}/${next}`;
  }
  throw cannotWrite(path, "it is a link of too many links");
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

/** Gives a new file the owner and the mode of the one whose place it takes. */
async function takeOver(file: FileHandle, replaced: Stats): Promise<void> {
  const { uid, gid, mode } = replaced;
  const made = await file.stat();
  if (made.uid !== uid || made.gid !== gid) {
    // Only the owner and root may: for others at least the group, if they are in it.
    await file.chown(uid, gid).catch(() => file.chown(made.uid, gid).catch(() => {}));
  }
  // Last, since a change of owner takes bits of the mode away.
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
 * What is at `place`, undefined if nothing. A name the system cannot even look up is told as it
 * says.
 */
function statAt(path: string, place: string) {
  try {
    return statSync(place, { throwIfNoEntry: false });
  } catch (error) {
    throw cannotWrite(path, (error as Error).message);
  }
}
