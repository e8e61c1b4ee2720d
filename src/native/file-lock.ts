/**
 * flock(2), which neither Bun nor Node offers: the lock that huggingface_hub takes too. The system
 * releases it when the process ends, however it ends, so no lock is ever stale.
 */
import { dlopen, read } from "bun:ffi";

/** "taken": another process has it; "none": the file system or the platform has no such locks. */
type LockResult = "locked" | "taken" | "none";

/** Tries to lock the open file `fd` for this process alone; closing `fd` releases it. */
export function tryFileLock(fd: number): LockResult {
  try {
    opened ??= open();
  } catch {
    return "none";
  }
  if (opened.flock(fd, exclusive | nonBlocking) === 0) return "locked";
  const address = opened.errno();
  const errno = address === null ? 0 : read.i32(address);
  return errno === wouldBlock ? "taken" : "none";
}

// --- internal ---

const exclusive = 2;
const nonBlocking = 4;
const isMac = process.platform === "darwin";
const wouldBlock = isMac ? 35 : 11;

let opened: ReturnType<typeof open> | null = null;

function open() {
  const flock = { args: ["i32", "i32"], returns: "i32" } as const;
  const errno = { args: [], returns: "ptr" } as const;
  if (isMac) {
    const { symbols } = dlopen("libSystem.B.dylib", { flock, __error: errno });
    return { flock: symbols.flock, errno: symbols.__error };
  }
  const { symbols } = dlopen("libc.so.6", { flock, __errno_location: errno });
  return { flock: symbols.flock, errno: symbols.__errno_location };
}
