/**
 * The sentences for a native library that cannot be loaded.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadFailure } from "../../src/native/load-failure.ts";

setDefaultTimeout(60_000);

const main = join(import.meta.dir, "../../src/main.ts");
const unlimited = "Max address space         unlimited            unlimited            bytes\n";
const limited =
  "Max cpu time  1 1\nMax address space         1536000000           unlimited  bytes\n";

test("a limit of address space is named, else the reason and how to get the library again", () => {
  const reason = "bun:ffi requires the JIT";
  expect(loadFailure("/x.so", reason, limited)).toContain("(ulimit -v 1500000)");
  const data = "Max data size  307200000  unlimited  bytes\n";
  expect(loadFailure("/x.so", reason, data + unlimited)).toContain("data size (ulimit -d 300000)");
  // A limit has nothing to do with other failures.
  expect(loadFailure("/x.so", "no such symbol", limited)).toStartWith("/x.so cannot be loaded");
  expect(loadFailure("/x.so", reason, unlimited)).toContain("BUN_JSC_useJIT");
  expect(loadFailure("/x.so", "no such symbol", unlimited)).toStartWith(
    "/x.so cannot be loaded (no such symbol): ",
  );
});

test.skipIf(process.platform !== "linux").each([800_000, 1_500_000])(
  "the command under ulimit -v %d names the limit or generates",
  async (kibibytes) => {
    const script = `ulimit -v ${kibibytes}; exec "$0" "$@"`;
    const out = join(tmpdir(), `basedxl-limit-${process.pid}.png`);
    const command = [process.execPath, main, "sample", "--steps", "1", "--out", out];
    const child = Bun.spawn(["bash", "-c", script, ...command], { stdout: "pipe", stderr: "pipe" });
    const text =
      (await new Response(child.stdout).text()) + (await new Response(child.stderr).text());
    if ((await child.exited) !== 0) expect(text).toContain("ulimit -v");
    rmSync(out, { force: true });
  },
);
