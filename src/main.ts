#!/usr/bin/env bun
/**
 * Where the `basedxl` command starts: set-up, then the command line. The exit code is decided here
 * and nowhere else; `cli.ts` is imported late because it needs the packages.
 */
import { runEntry } from "./setup/entry.ts";

const argv = process.argv.slice(2);

// Who reads may go away (`| head`), and disks fill: neither is a bug of ours with a stack.
process.stderr.on("error", () => process.exit(1));
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") {
    process.stderr.write(`error: Cannot write to standard output: ${error.message}.\n`);
  }
  process.exit(1);
});

const exitCode = await runEntry(argv, async () => {
  const { runCli } = await import("./cli.ts");
  return await runCli(argv);
});
// After a signal nothing is waited for, such as an image encoder that is still at work.
if (exitCode > 128) process.exit(exitCode);
process.exitCode = exitCode;
