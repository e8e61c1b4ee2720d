/**
 * malloc's reserve of this process, on Linux with glibc: what sharp and the drivers free.
 */
import { dlopen, FFIType } from "bun:ffi";

/** Gives the pages of what was freed back to the system. */
export function trimHeap(): void {
  malloc?.malloc_trim(0n);
}

// --- internal ---

const malloc = openMalloc();

function openMalloc() {
  if (process.platform !== "linux") return null;
  try {
    // The process has it loaded, or is none of glibc's.
    return dlopen("libc.so.6", {
      malloc_trim: { args: [FFIType.u64], returns: FFIType.i32 },
    }).symbols;
  } catch {
    return null;
  }
}
