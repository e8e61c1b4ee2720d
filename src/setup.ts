/**
 * Makes a fresh clone runnable: checks the machine, installs the packages, builds the native
 * library. Up-to-date outputs are kept, so every command can start with `setUp()`.
 *
 * Nothing in this file or its folder may import a package: it runs before there are any.
 */
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import packageJson from "../package.json" with { type: "json" };
import { BasedXLError } from "./errors.ts";
import { compilerOfPackages, findNvcc } from "./setup/compiler.ts";
import { withLock } from "./setup/lock.ts";
import { buildNative, nativeStaleReason } from "./setup/native.ts";
import { installPackages, packagesStaleReason } from "./setup/packages.ts";
import { machineProblem } from "./setup/platform.ts";
import type { Report } from "./setup/tool.ts";

/** The folder of the clone; every path of the set-up is below it. */
export const repositoryRoot = join(import.meta.dir, "..");

interface SetUpOptions {
  /** True: only errors are written. */
  quiet: boolean;
}

interface SetUpResult {
  /**
   * True when `node_modules` did not exist at process start: Bun's resolver caches that, so imports
   * of packages fail until the process is restarted.
   */
  restartNeeded: boolean;
}

/**
 * Brings packages and native library up to date. Progress lines go to stderr: stdout belongs to the
 * command. Throws `BasedXLError` "setup" with the tool's own message.
 */
export async function setUp({ quiet }: SetUpOptions): Promise<SetUpResult> {
  const problem = machineProblem({
    platform: process.platform,
    arch: process.arch,
    bunVersion: Bun.version,
    bunVersionMin: packageJson.engines.bun.replace(">=", ""),
  });
  if (problem) throw new BasedXLError("setup", problem);

  const root = repositoryRoot;
  const restartNeeded = !existsSync(join(root, "node_modules"));
  const report = quiet ? () => {} : (line: string) => void process.stderr.write(`${line}\n`);
  const live = !quiet && process.stderr.isTTY === true;
  if (!staleReason(root)) return { restartNeeded };

  try {
    mkdirSync(join(root, "zig-out"), { recursive: true });
    const lockPath = join(root, "zig-out", "setup-lock");
    await withLock({ path: lockPath, report }, () => freshen({ root, report, live }));
  } catch (error) {
    // System errors (read-only folder, full disk) are the environment's: one sentence, no stack.
    if (!(error instanceof Error && "syscall" in error)) throw error;
    throw new BasedXLError("setup", `The set-up cannot work in ${root}: ${error.message}.`);
  }
  return { restartNeeded };
}

// --- internal ---

/** Checks everything again under the lock: another process may have done the work meanwhile. */
async function freshen(options: { root: string; report: Report; live: boolean }): Promise<void> {
  const { root } = options;
  const packagesReason = packagesStaleReason(root);
  if (packagesReason) await installPackages({ ...options, reason: packagesReason });
  const tools = { zig: compilerOfPackages(root), ...findNvcc(process.env) };
  const nativeReason = nativeStaleReason({ root, ...tools });
  if (nativeReason) await buildNative({ ...options, ...tools, reason: nativeReason });
}

function staleReason(root: string): string | null {
  const packagesReason = packagesStaleReason(root);
  if (packagesReason) return packagesReason;
  return nativeStaleReason({ root, zig: compilerOfPackages(root), ...findNvcc(process.env) });
}
