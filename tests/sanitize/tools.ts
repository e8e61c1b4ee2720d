/**
 * Programs that sanitizers are made of, run in the clone with their output on the terminal.
 */
import { compilerOfPackages } from "../../src/setup/compiler.ts";
import { zigEnvironment } from "../../src/setup/native.ts";
import { repositoryRoot as root } from "../../src/setup.ts";

/** The exit code. */
export async function run(command: string[], env = process.env): Promise<number> {
  const stdio: ["ignore", "inherit", "inherit"] = ["ignore", "inherit", "inherit"];
  return await Bun.spawn(command, { cwd: root, env, stdio }).exited;
}

/** Whether a step of build.zig passed. */
export async function zigBuild(...steps: string[]): Promise<boolean> {
  const zig = compilerOfPackages(root);
  if (!zig) throw new Error("the set-up left no Zig compiler");
  const env = zigEnvironment(root, zig) as typeof process.env;
  return (await run([zig.path, "build", ...steps], env)) === 0;
}
