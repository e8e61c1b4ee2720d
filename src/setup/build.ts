/**
 * `bun run build:native`: the set-up alone, without a command after it. An up-to-date library is
 * not rebuilt.
 */
import { runEntry } from "./entry.ts";

process.exitCode = await runEntry(process.argv.slice(2), async () => {
  process.stderr.write("The native library is up to date.\n");
  return 0;
});
