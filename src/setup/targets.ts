/**
 * Builds the library for every target, without CUDA kernels, and checks that the build is
 * reproducible: the same sources in another folder give the same bytes. Zig's caches make a second
 * run short.
 */
import { cpSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { BasedXLError } from "../errors.ts";
import type { ZigCompiler } from "./compiler.ts";
import { zigEnvironment } from "./native.ts";
import { libraryName } from "./platform.ts";
import { runTool } from "./tool.ts";

/** Zig's target triples; the glibc version is that of the oldest system that Bun runs on. */
export const targets = {
  linuxX64: "x86_64-linux-gnu.2.28",
  linuxArm64: "aarch64-linux-gnu.2.28",
  macosArm64: "aarch64-macos",
} as const;

interface Place {
  root: string;
  zig: ZigCompiler;
}

/** Builds for `target` and returns the library's path. Throws "setup" with Zig's own message. */
export async function buildFor(target: string, { root, zig }: Place): Promise<string> {
  return await build({ root, zig, folder: root, target });
}

/**
 * Builds for x86-64 Linux in this folder, and from a copy of the sources in another folder with its
 * own cache. Throws "setup" where the two libraries differ.
 */
export async function buildTwice({ root, zig }: Place): Promise<void> {
  // On x86-64 Linux the default target is the same and often built already.
  const isDefault = process.platform === "linux" && process.arch === "x64";
  const target = targets.linuxX64;
  const here = await build({ root, zig, folder: root, target: isDefault ? null : target });

  const folder = join(root, "zig-out", "elsewhere");
  for (const name of ["zig", "cuda"]) rmSync(join(folder, name), { recursive: true, force: true });
  // The recorded numbers of `verify` are compiled in.
  const recorded = "tests/fixtures/golden";
  for (const name of ["build.zig", "build.zig.zon", "zig", "cuda", recorded]) {
    cpSync(join(root, name), join(folder, name), { recursive: true, preserveTimestamps: true });
  }
  const there = await build({ root, zig, folder, target });
  if (readFileSync(here).equals(readFileSync(there))) return;
  throw new BasedXLError(
    "setup",
    `The build is not reproducible: ${here} and ${there} differ. Something in them depends on the \
folder or on the order of the build.`,
  );
}

// --- internal ---

async function build(options: {
  root: string;
  zig: ZigCompiler;
  folder: string;
  target: string | null;
}): Promise<string> {
  const { root, zig, folder, target } = options;
  const prefix = join(folder, "zig-out", "targets", target ?? "default");
  await runTool({
    command: [
      ...[zig.path, "build", "-Doptimize=ReleaseFast", "-Dcuda=false", "--prefix", prefix],
      ...(target === null ? [] : [`-Dtarget=${target}`]),
    ],
    cwd: folder,
    env: zigEnvironment(root, zig),
    failure: `The library for ${target ?? "this machine"} did not build`,
    live: false,
  });
  return join(prefix, "lib", libraryName(target?.includes("macos") ? "darwin" : "linux"));
}
