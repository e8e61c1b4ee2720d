/**
 * Steps of build.zig, run by the compiler that builds the library.
 */
import { compilerOfPackages } from "../../src/setup/compiler.ts";
import { zigEnvironment } from "../../src/setup/native.ts";
import { repositoryRoot as root } from "../../src/setup.ts";

/** Runs `zig build` with these steps and options to its end, beside whatever else there is. */
export async function zigBuild(...steps: string[]) {
  const zig = compilerOfPackages(root);
  if (!zig) throw new Error("the set-up left no Zig compiler");
  const env = zigEnvironment(root, zig);
  const child = Bun.spawn([zig.path, "build", ...steps], { cwd: root, env, stderr: "pipe" });
  const [stdout, stderr, exitCode] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ]);
  return { exitCode, stdout, stderr };
}
