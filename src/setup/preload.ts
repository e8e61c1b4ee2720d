/**
 * Runs before `bun test` (bunfig.toml): the same set-up as every command; then `bun test` without
 * arguments is run again in several processes. When the tests cannot start it exits, because Bun
 * would repeat an exception for every test file.
 */
import { availableParallelism } from "node:os";
import { BasedXLError } from "../errors.ts";
import { setUp } from "../setup.ts";
import { runAgain } from "./entry.ts";
import { testArguments, withProcesses } from "./test-processes.ts";

try {
  const { restartNeeded } = await setUp({ quiet: false });
  const typed = testArguments();
  if (restartNeeded && !typed) {
    process.stderr.write("The packages are installed now: run `bun test` again.\n");
    process.exit(1);
  }
  const wanted = typed && withProcesses(typed, availableParallelism());
  if (wanted && (restartNeeded || wanted !== typed)) process.exit(await runAgain(wanted));
} catch (error) {
  if (!(error instanceof BasedXLError)) throw error;
  process.stderr.write(`error: ${error.message}\n`);
  process.exit(1);
}
