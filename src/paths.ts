/**
 * Relative paths, resolved against the folder the user stands in. That folder may be gone (deleted
 * in another terminal): Bun would then take the folder of its own executable, silently.
 */
import { statSync } from "node:fs";
import { isAbsolute, resolve } from "node:path";
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

// --- internal ---

/** Whether the path that relative names are resolved against is still the folder of the process. */
function currentFolderExists(): boolean {
  try {
    const named = statSync(process.cwd(), { bigint: true });
    const here = statSync(".", { bigint: true });
    return named.ino === here.ino && named.dev === here.dev;
  } catch {
    return false;
  }
}
