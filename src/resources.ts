/**
 * Paths of the files that the program needs beside its code. This is the version of a clone; the
 * build replaces it by src/binary/resources.ts, which exports the same functions.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import packageJson from "../package.json" with { type: "json" };
import type { Resources } from "./binary/contents.ts";
import { libraryName } from "./setup/platform.ts";

const root = join(import.meta.dir, "..");

export const resources: Resources = {
  isBinary: false,
  nativeLibrary: () => join(root, "zig-out", "lib", libraryName(process.platform)),
  emulator: () => {
    const name = libraryName(process.platform).replace("basedxl", "basedxl_emulated");
    return join(root, "zig-out", "lib", name);
  },
  buildEmulator: async (report) => (await import("./setup/emulator.ts")).buildEmulator(report),
  rebuildHint: "`bun run build:native` builds it",
  bundledModel: () => join(import.meta.dir, "assets/mini-sdxl"),
  bundledControlNet: () => join(import.meta.dir, "assets/mini-outlines"),
  clipVocabulary: () => join(import.meta.dir, "assets/clip"),
  hashWorker: join(import.meta.dir, "library/sha256-worker.ts"),
  cacheReport: () => null,
  licenses: async () => (await import("./setup/licenses.ts")).collectLicenses(root),
  versions: () => ({
    basedxl: packageJson.version,
    bun: Bun.version,
    zig: zigVersion(),
    cudaKernels: null,
  }),
};

// --- internal ---

/** The Zig version of the last build. */
function zigVersion(): string {
  try {
    const stamp = readFileSync(join(root, "zig-out", "build-stamp.json"), "utf8");
    return (JSON.parse(stamp) as { zig: string }).zig;
  } catch {
    return "unknown";
  }
}
