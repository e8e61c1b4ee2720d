/**
 * Runs before `bun test` (bunfig.toml): the same set-up as every command. When the tests cannot
 * start it exits, because Bun would repeat an exception for every test file.
 */
import { existsSync, readFileSync } from "node:fs";
import { BasedXLError } from "../errors.ts";
import { setUp } from "../setup.ts";
import { runAgain } from "./entry.ts";

try {
  const { restartNeeded } = await setUp({ quiet: false });
  if (restartNeeded) process.exit(await runTestsAgain());
} catch (error) {
  if (!(error instanceof BasedXLError)) throw error;
  process.stderr.write(`error: ${error.message}\n`);
  process.exit(1);
}

// --- internal ---

/** Bun hides the arguments of `bun test` from scripts; Linux reports them. */
async function runTestsAgain(): Promise<number> {
  const path = "/proc/self/cmdline";
  if (!existsSync(path)) {
    process.stderr.write("The packages are installed now: run `bun test` again.\n");
    return 1;
  }
  return await runAgain(readFileSync(path, "utf8").split("\0").slice(1, -1));
}
