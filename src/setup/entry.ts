/**
 * Entry of a command: runs the set-up, then the command's code, and prints set-up errors as one
 * line on stderr. The command's modules are imported inside `command`, after the packages exist.
 */
import { BasedXLError, escapedLines } from "../errors.ts";
import { setUp } from "../setup.ts";
import { environmentWithoutFiles } from "./environment-file.ts";

/**
 * Sets up, runs `command` and resolves to the exit code. With `--json` among the arguments, a
 * failed set-up is also written as one object on stdout, in the format of the commands' errors.
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

/** Starts Bun again with these arguments, on the same terminal; resolves to its exit code. */
export async function runAgain(
  bunArguments: string[],
  env: Record<string, string | undefined> = process.env,
): Promise<number> {
  const child = Bun.spawn([process.execPath, ...bunArguments], {
    env,
    stdio: ["inherit", "inherit", "inherit"],
  });
  // Ctrl-C reaches both processes of the terminal's group: only the child handles it.
  process.on("SIGINT", () => {});
  process.on("SIGTERM", () => child.kill("SIGTERM"));
  return await child.exited;
}
