/**
 * Why the native library cannot be loaded, in a sentence with what would help.
 */
import { readFileSync } from "node:fs";
import { resources } from "../resources.ts";

/** `reason` is what dlopen or Bun said; `limits` the text of /proc/self/limits. */
export function loadFailure(path: string, reason: string, limits = readLimits()): string {
  // Bun switches its JIT off where it cannot reserve address space, and bun:ffi needs it.
  const kibibytes = addressSpaceKiB(limits);
  if (kibibytes !== null) {
    return `The native library cannot be loaded under a limit of address space (ulimit -v \
${kibibytes}), since Bun reserves more than it uses: raise it or set it to unlimited, and limit \
memory by a control group instead.`;
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

/** The soft limit, as `ulimit -v` counts; null where there is none. */
function addressSpaceKiB(limits: string): number | null {
  const bytes = /^Max address space +(\d+)/m.exec(limits)?.[1];
  return bytes === undefined ? null : Math.floor(Number(bytes) / 1024);
}
