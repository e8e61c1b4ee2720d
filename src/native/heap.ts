/**
 * malloc's reserve of this process, on Linux with glibc: what sharp, SQLite and the drivers free.
 * Each thread gets an arena of its own at first, which keeps what was freed between blocks in use.
 */
import { dlopen, FFIType } from "bun:ffi";

/**
 * From now on threads share malloc's first arena: for services, at their start. What computes
 * allocates nothing per step, so nothing waits for the arena's lock.
 */
export function shareHeap(): void {
  malloc?.mallopt(arenaMax, 1);
}

/** Gives the pages of what was freed back to the system. */
export function trimHeap(): void {
  malloc?.malloc_trim(0n);
}

// --- internal ---

/** M_ARENA_MAX of <malloc.h>. */
const arenaMax = -8;

const malloc = openMalloc();

function openMalloc() {
  if (process.platform !== "linux") return null;
  try {
    // The process has it loaded, or is none of glibc's.
    return dlopen("libc.so.6", {
      mallopt: { args: [FFIType.i32, FFIType.i32], returns: FFIType.i32 },
      malloc_trim: { args: [FFIType.u64], returns: FFIType.i32 },
    }).symbols;
  } catch {
    return null;
  }
}
