/**
 * Builds the binary once per test run, and starts it with an explicit environment in a temporary
 * folder.
 */
import { existsSync, mkdirSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const root = join(import.meta.dir, "../../..");

export interface Ended {
  exitCode: number | null;
  stdout: string;
  stderr: string;
}

/** Builds the binary in `folder` with the users' command, and returns its path. */
export function buildBinaryIn(folder: string): string {
  const path = join(folder, "basedxl");
  const command = [process.execPath, join(root, "src", "setup", "build-binary.ts"), path];
  const { exitCode, stderr } = Bun.spawnSync(command, { cwd: root, stdin: "ignore" });
  if (exitCode !== 0 || !existsSync(path)) throw new Error(stderr.toString());
  return path;
}

export async function ended(child: Bun.Subprocess<"ignore", "pipe", "pipe">): Promise<Ended> {
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { exitCode, stdout, stderr };
}

/** Starts `command` in `cwd` with `env` only, like `env -i`. */
export function start(command: string[], cwd: string, env: Record<string, string> = {}) {
  const stdio = { stdin: "ignore", stdout: "pipe", stderr: "pipe" } as const;
  return Bun.spawn(command, { cwd, env, ...stdio });
}

/** A new temporary folder with subfolders `names`. */
export function newFolder(...names: string[]): string {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-binary-"));
  for (const name of names) mkdirSync(join(folder, name));
  return folder;
}
