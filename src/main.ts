#!/usr/bin/env bun
/**
 * Entry point of the `basedxl` command: set-up, then the command line. Only this file sets the exit
 * code; `cli.ts` is imported late because it needs the packages.
 */
import { runEntry } from "./setup/entry.ts";
import { shareHeap } from "./setup/shared-heap.ts";

const argv = process.argv.slice(2);

if (argv[0] === "serve" || argv[0] === "worker") shareHeap();

// EPIPE (`| head`) and ENOSPC are the environment's errors: exit 1 without a stack trace.
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
// After a signal, exit at once: an image encoder may still be running.
if (exitCode > 128) process.exit(exitCode);
process.exitCode = exitCode;
