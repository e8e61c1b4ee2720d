/**
 * Writes whole files or nothing: the bytes go to a temporary name in the same folder, which then
 * takes the place of the old file in one rename. Never write a result straight to its own name.
 */
import { accessSync, constants, realpathSync, statSync } from "node:fs";
import { open, rename, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { BasedXLError, stopIfAborted } from "../errors.ts";

/**
 * Checks that a file can be written at `path`, without touching it, and returns where it will lie:
 * behind a link, that is the link's target. Call it before long work. Throws "io" when the folder
 * is missing or not writable, or when at `path` is something else than a file that may be written.
 */
export function checkWritable(path: string): string {
  const named = resolve(path);
  checkFolder(path, dirname(named));
  const found = statAt(path, named);
  if (path === "" || /[/\\]$/.test(path) || found?.isDirectory()) {
    throw new BasedXLError(
      "io",
      `Cannot write ${path || '""'}: it is a folder; name a file in it.`,
    );
  }
  // A pipe or a device cannot be replaced by a whole file without losing it.
  if (found && !found.isFile()) throw cannotWrite(path, "it is there already, and is no file");
  const target = found ? realpathSync(named) : named;
  const folder = dirname(target);
  if (!mayWrite(folder, constants.W_OK | constants.X_OK)) {
    throw cannotWrite(path, `the folder ${folder} is not writable`);
  }
  // The rename would replace it all the same, and with it what its owner wanted to keep.
  if (found && !mayWrite(target, constants.W_OK)) {
    throw cannotWrite(path, "the file that is there is write-protected");
  }
  return target;
}

/**
 * Replaces the file at `path` by `bytes`, whole: a reader sees the old file or the new one, also
 * after a crash. Throws "io" with the system's reason, or "cancelled", and then leaves nothing
 * behind.
 */
export async function writeWhole(
  path: string,
  bytes: Uint8Array,
  signal?: AbortSignal,
): Promise<void> {
  const target = checkWritable(path);
  const temporary = join(dirname(target), `.basedxl-${crypto.randomUUID()}.tmp`);
  try {
    const file = await open(temporary, "wx");
    try {
      await file.writeFile(bytes);
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
