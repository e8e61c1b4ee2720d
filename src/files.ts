/**
 * Writes whole files or nothing: the bytes go to a temporary name in the same folder, which then
 * takes the place of the old file in one rename. Never write a result straight to its own name.
 */
import { accessSync, constants, statSync } from "node:fs";
import { open, rename, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { BasedXLError } from "./errors.ts";

/**
 * Checks that a file can be written at `path`, without touching it. Call it before long work.
 * Throws "io" when the folder is missing or not writable, or when `path` is a folder.
 */
export function checkWritable(path: string): void {
  const target = resolve(path);
  const folder = dirname(target);
  const stat = statAt(folder);
  if (!stat) {
    throw new BasedXLError("io", `Cannot write ${path}: the folder ${folder} does not exist.`);
  }
  if (!stat.isDirectory()) {
    throw new BasedXLError("io", `Cannot write ${path}: ${folder} is a file, not a folder.`);
  }
  if (path === "" || /[/\\]$/.test(path) || statAt(target)?.isDirectory()) {
    throw new BasedXLError(
      "io",
      `Cannot write ${path || '""'}: it is a folder; name a file in it.`,
    );
  }
  try {
    accessSync(folder, constants.W_OK | constants.X_OK);
  } catch {
    throw new BasedXLError("io", `Cannot write ${path}: the folder ${folder} is not writable.`);
  }
}

/**
 * Replaces the file at `path` by `bytes`, whole: a reader sees the old file or the new one, also
 * after a crash. Throws "io" with the system's reason, and then leaves nothing behind.
 */
export async function writeWhole(path: string, bytes: Uint8Array): Promise<void> {
  checkWritable(path);
  const target = resolve(path);
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
    await rename(temporary, target);
  } catch (error) {
    await rm(temporary, { force: true });
    throw new BasedXLError("io", `Cannot write ${path}: ${(error as Error).message}.`);
  }
}

// --- internal ---

/**
 * What is at `path`, undefined if nothing. A name the system cannot even look up is told as it
 * says.
 */
function statAt(path: string) {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch (error) {
    throw new BasedXLError("io", `Cannot write ${path}: ${(error as Error).message}.`);
  }
}
