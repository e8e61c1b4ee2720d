/**
 * Paths as users write them: `~` expanded, relative ones resolved against the current folder. That
 * folder may have been deleted: Bun would then silently use the folder of its own executable.
 */
import { statSync } from "node:fs";
import { homedir } from "node:os";
import { basename, isAbsolute, join, resolve } from "node:path";
import { BasedXLError, escaped } from "./errors.ts";

/** The absolute form of `path`. Throws "io" for a relative one where the current folder is gone. */
export function absolutePath(path: string): string {
  if (!isAbsolute(path) && !currentFolderExists()) {
    throw new BasedXLError(
      "io",
      `Cannot find ${escaped(path) || '""'}: the current folder was deleted; change to another ` +
        "folder, or give an absolute path.",
    );
  }
  return resolve(path);
}

/** `~` and `~/x` below the home folder: shells leave them alone after `=` and in quotes. */
export function expandHome(path: string): string {
  return path === "~" || path.startsWith("~/") ? join(homedir(), path.slice(1)) : path;
}

/** Whether there is a folder, or a link to one, at `path`. */
export function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

/** What a file or folder of weights is called: its name without the ending. */
export function weightsName(path: string): string {
  return basename(path).replace(/\.(safetensors|sft)$/i, "");
}

// --- internal ---

/** Whether the path of the current folder still names the process's working folder. */
function currentFolderExists(): boolean {
  try {
    const named = statSync(process.cwd(), { bigint: true });
    const here = statSync(".", { bigint: true });
    return named.ino === here.ino && named.dev === here.dev;
  } catch {
    return false;
  }
}
