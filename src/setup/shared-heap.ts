/**
 * One arena of malloc for all threads of a service, on Linux: what one frees serves the others. One
 * or two of Bun's have their own before any code runs, and glibc reads its variables at the start
 * of a process alone: it starts once more in place, with the same id, arguments and open files.
 */
import { givenEnvironment, givenStrings } from "./environment-file.ts";

/** Call it before much is loaded. It returns in the second start, and where there is none. */
export function shareHeap(): void {
  const { env, pid } = process;
  // A user's number stays. glibc drops it from programs with privileges of their own (setcap), so
  // it alone does not say that this is the second start.
  if (env[arenaMax] !== undefined || env[startedBy] === String(pid)) return;
  const environment = givenEnvironment();
  const command = givenStrings("cmdline");
  if (environment === null || command === null) return;
  try {
    const added = { [arenaMax]: "1", [startedBy]: String(pid) };
    process.execve?.(process.execPath, command, { ...environment, ...added });
  } catch {
    // Threads keep their arenas, which costs a service some megabytes.
  }
}

// --- internal ---

const arenaMax = "MALLOC_ARENA_MAX";
/** The id of the process that has started again. */
const startedBy = "BASEDXL_STARTED_BY";
