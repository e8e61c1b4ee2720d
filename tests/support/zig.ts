/**
 * Steps of build.zig, run by the compiler that builds the library.
 */
import { join } from "node:path";
import { compilerOfPackages } from "../../src/setup/compiler.ts";

const root = join(import.meta.dir, "../..");

/** Runs `zig build` with these steps and options to its end, beside whatever else there is. */
export async function zigBuild(...steps: string[]) {
  const zig = compilerOfPackages(root);
  if (!zig) throw new Error("the set-up left no Zig compiler");
  const env = {
    ...process.env,
    ...(zig.libFolder ? { ZIG_LIB_DIR: zig.libFolder } : {}),
    ZIG_GLOBAL_CACHE_DIR: process.env.ZIG_GLOBAL_CACHE_DIR ?? join(root, ".zig-cache", "global"),
  };
  const child = Bun.spawn([zig.path, "build", ...steps], { cwd: root, env, stderr: "pipe" });
  const [stdout, stderr, exitCode] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ]);
  return { exitCode, stdout, stderr };
}
