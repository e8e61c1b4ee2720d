#!/usr/bin/env bun
/**
 * Where the `basedxl` command starts: set-up, then the command line. The exit code is decided here
 * and nowhere else; `cli.ts` is imported late because it needs the packages.
 */
import { runEntry } from "./setup/entry.ts";

const argv = process.argv.slice(2);

process.exitCode = await runEntry(argv, async () => {
  const { runCli } = await import("./cli.ts");
  return await runCli(argv);
});
