/**
 * `bun run sanitize [leaks] [valgrind] [races]`: the native code under what finds leaks, reads of
 * undefined or freed memory, and races; all three without arguments. Linux on x86-64.
 *
 *   leaks     Zig's tests in ReleaseSafe, then tests that load the library in ReleaseSafe with an
 *             allocator that knows what was never freed (zig/system/leaks.zig)
 *   valgrind  memcheck over recorded jobs (jobs.ts) that zig/replay.zig does again
 *   races     ThreadSanitizer over more of them, and over Zig's tests of ranks on the emulator
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runEntry } from "../../src/setup/entry.ts";

type Check = (folder: string) => Promise<boolean>;

const parts: Record<string, () => Promise<Check>> = {
  leaks: async () => (await import("./leaks.ts")).findLeaks,
  valgrind: async () => (await import("./replays.ts")).runValgrind,
  races: async () => (await import("./replays.ts")).findRaces,
};

const asked = process.argv.slice(2);
process.exitCode = await runEntry([], async () => {
  const unknown = asked.find((name) => !(name in parts));
  if (unknown !== undefined) {
    process.stderr.write(`error: sanitize has ${Object.keys(parts).join(", ")}; not ${unknown}.\n`);
    return 2;
  }
  const folder = mkdtempSync(join(tmpdir(), "basedxl-sanitize-"));
  let failed = 0;
  try {
    for (const name of asked.length > 0 ? asked : Object.keys(parts)) {
      const startMs = performance.now();
      const check = await parts[name]!();
      const passed = await check(folder);
      const seconds = ((performance.now() - startMs) / 1000).toFixed(0);
      process.stdout.write(`${passed ? "ok    " : "FAILED"} ${name} (${seconds} s)\n`);
      if (!passed) failed += 1;
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
    (await import("./jobs.ts")).removeFiles();
  }
  return failed === 0 ? 0 : 1;
});
