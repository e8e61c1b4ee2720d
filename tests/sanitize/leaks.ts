/**
 * Leaks: Zig's tests, and tests that load the library, in ReleaseSafe.
 */
import { run, zigBuild } from "./tools.ts";

/** What jobs of each kind allocate, keep and free, and jobs that fail. */
const files = [
  "batches",
  "controls",
  "hires",
  "inputs",
  "ip-adapter",
  "loras",
  "native",
  "upscalers",
];

/** The library's own (zig/system/leaks.zig). */
const leakCode = 86;
const testTimeoutMs = 120_000;
const preload = "./tests/sanitize/leaks-preload.ts";

export async function findLeaks(): Promise<boolean> {
  const mode = "-Doptimize=ReleaseSafe";
  if (!(await zigBuild("test", mode))) return false;
  if (!(await zigBuild(mode, "-Dfind-leaks", "--prefix", "zig-out/leaks"))) return false;
  const bun = [process.execPath, "test", "--preload", preload, "--timeout", `${testTimeoutMs}`];
  // First a leak made on purpose, which must be found.
  const probe = [...bun, "tests/sanitize/leaks.test.ts"];
  if ((await run(probe, { ...process.env, BASEDXL_MAKE_LEAK: "1" })) !== leakCode) return false;
  return (await run([...bun, ...files.map((name) => `tests/native/${name}.test.ts`)])) === 0;
}
