/**
 * How a command starts: set-up first, then its own code, and every error of the world as one line
 * on stderr. The command's modules are imported inside `command`, after the packages exist.
 */
import { BasedXLError, escapedLines } from "../errors.ts";
import { setUp } from "../setup.ts";
import { environmentWithoutFiles } from "./environment-file.ts";

/**
 * Sets up, runs `command` and resolves to the exit code. With `--json` among the arguments a set-up
 * that fails is also told as one object on stdout, as the commands tell their errors.
 */
export async function runEntry(argv: string[], command: () => Promise<number>): Promise<number> {
  const clean = environmentWithoutFiles();
  if (clean) return await runAgain(["--no-env-file", ...process.argv.slice(1)], clean);
  try {
    const { restartNeeded } = await setUp({ quiet: argv.includes("--quiet") });
    if (restartNeeded) return await runAgain([...process.execArgv, ...process.argv.slice(1)]);
  } catch (error) {
    if (!(error instanceof BasedXLError)) throw error;
    const { code, message } = error;
    process.stderr.write(`error: ${escapedLines(message)}\n`);
    if (argv.includes("--json")) {
      process.stdout.write(`${JSON.stringify({ error: { code, message } })}\n`);
    }
    return 1;
  }
  return await command();
}

/** Runs Bun anew with these arguments, on the same terminal, and resolves to its exit code. */
export async function runAgain(
  bunArguments: string[],
  env: Record<string, string | undefined> = process.env,
): Promise<number> {
  const child = Bun.spawn([process.execPath, ...bunArguments], {
    env,
    stdio: ["inherit", "inherit", "inherit"],
  });
  // Ctrl-C reaches both processes of the terminal's group: the new one decides what it means.
  process.on("SIGINT", () => {});
  process.on("SIGTERM", () => child.kill("SIGTERM"));
  return await child.exited;
}
