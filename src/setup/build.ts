/**
 * `bun run build:native`: the set-up and nothing else, for a build without a command. A library
 * that is fresh is not built again.
 */
import { runEntry } from "./entry.ts";

process.exitCode = await runEntry(process.argv.slice(2), async () => {
  process.stderr.write("The native library is up to date.\n");
  return 0;
});
