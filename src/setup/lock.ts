/**
 * One set-up at a time per clone: a lock that the operating system drops when its holder dies, so
 * there is no stale lock to clean up. It is an exclusive SQLite transaction on an empty file.
 *
 * The lock file is never deleted: a process that waits on a deleted file would not see the next
 * holder.
 */
import { Database } from "bun:sqlite";
import { readFileSync, writeFileSync } from "node:fs";
import type { Report } from "./tool.ts";

/**
 * Runs `work` while holding the lock at `path`, waiting for it first. `path` is created; the number
 * of the holding process is kept in `path`.pid, so that a waiter can report the holder.
 */
export async function withLock<T>(
  options: { path: string; report: Report; pollMs?: number },
  work: () => Promise<T>,
): Promise<T> {
  const { path, report, pollMs = 100 } = options;
  const database = new Database(path, { create: true });
  try {
    let waits = false;
    while (!tryLock(database)) {
      if (!waits) report(`Waiting for another set-up of this folder (process ${holderOf(path)})`);
      waits = true;
      await Bun.sleep(pollMs);
    }
    writeFileSync(pidPath(path), `${process.pid}\n`);
    return await work();
  } finally {
    database.close();
  }
}

// --- internal ---

function tryLock(database: Database): boolean {
  try {
    database.run("BEGIN EXCLUSIVE");
    return true;
  } catch (error) {
    if ((error as { code?: string }).code?.startsWith("SQLITE_BUSY")) return false;
    throw error;
  }
}

function pidPath(path: string): string {
  return `${path}.pid`;
}

function holderOf(path: string): string {
  try {
    return readFileSync(pidPath(path), "utf8").trim() || "unknown";
  } catch {
    return "unknown";
  }
}
