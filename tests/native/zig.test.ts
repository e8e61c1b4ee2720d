/**
 * What the Zig side says of itself: its own tests, and bindings that agree with its structs. Run
 * through the same compiler that builds the library.
 */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { zigBuild } from "../support/zig.ts";

const root = join(import.meta.dir, "../..");
/** The first run compiles the library once more, for the tests. */
const timeoutMs = 240_000;

test.concurrent(
  "the tests beside the code pass",
  async () => {
    const { exitCode, stderr } = await zigBuild("test", "--summary", "all");
    expect(exitCode, stderr).toBe(0);
    expect(stderr).toMatch(/\d+\/\d+ tests passed|\d+ pass/);
  },
  timeoutMs,
);

test.concurrent(
  "src/native/abi.ts is what zig/abi.zig generates",
  async () => {
    const { exitCode, stdout, stderr } = await zigBuild("bindings");
    expect(exitCode, stderr).toBe(0);
    expect(readFileSync(join(root, "src/native/abi.ts"), "utf8")).toBe(stdout);
  },
  timeoutMs,
);
