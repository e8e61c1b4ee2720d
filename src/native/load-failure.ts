/**
 * The error message where the native library cannot be loaded, with advice.
 */
import { readFileSync } from "node:fs";
import { resources } from "../resources.ts";

/** `reason` is the message of dlopen or Bun; `limits` the text of /proc/self/limits. */
export function loadFailure(path: string, reason: string, limits = readLimits()): string {
  // Bun disables its JIT where it cannot reserve address space, and bun:ffi needs it.
  const isMemory = /\bJIT\b|allocate memory|failed to map|cannot map/i.test(reason);
  const limit = isMemory ? memoryLimit(limits) : null;
  if (limit !== null) {
    return `The native library cannot be loaded under a limit of ${limit}, since Bun reserves \
more than it uses: raise it or set it to unlimited, and limit memory by a control group instead.`;
  }
  if (/\bJIT\b/.test(reason)) {
    return `The native library needs Bun's JIT, and something has switched it off (${reason}): \
unset BUN_JSC_useJIT, or allow programs to map memory that is both written and run.`;
  }
  return `${path} cannot be loaded (${reason}): ${resources.rebuildHint}.`;
}

// --- internal ---

function readLimits(): string {
  try {
    return readFileSync("/proc/self/limits", "utf8");
  } catch {
    return "";
  }
}

/** The soft limit that is set, with its flag of `ulimit`, which counts KiB; null for none. */
function memoryLimit(limits: string): string | null {
  for (const [name, flag] of [
    ["address space", "-v"],
    ["data size", "-d"],
  ]) {
    const bytes = new RegExp(`^Max ${name} +(\\d+)`, "m").exec(limits)?.[1];
    if (bytes !== undefined) return `${name} (ulimit ${flag} ${Math.floor(Number(bytes) / 1024)})`;
  }
  return null;
}
