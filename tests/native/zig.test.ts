/**
 * Zig's own tests, and bindings that match its structs, run by the compiler that builds the
 * library.
 */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { sourceOf } from "../support/sources.ts";
import { testBlocks, testsRun, zigBuild } from "../support/zig.ts";

const root = join(import.meta.dir, "../..");
/** The first run compiles the library once more, for the tests. */
const timeoutMs = 480_000;

test.concurrent(
  "the tests beside the code pass",
  async () => {
    const { exitCode, stderr } = await zigBuild("test", "--summary", "all");
    expect(exitCode, stderr).toBe(0);
    expect(testsRun(stderr), stderr).toBe(testBlocks("test"));
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

test("tests are counted: those of the tree by step, those that ran by the summary", () => {
  const sources = [
    sourceOf("zig/a.zig", 'test "one" {\n}\n\ntest {\n}\n// test "not"\n'),
    sourceOf("zig/b.zig", 'const S = struct {\n    test "inner" {\n    }\n};\ntest parse {\n}\n'),
    sourceOf("zig/emulator/c.zig", 'test "two" {\n}\n'),
  ];
  expect(testBlocks("test", sources)).toBe(4);
  expect(testBlocks("test-cuda", sources)).toBe(1);
  expect(testsRun("+- run test 110 pass, 2 skip (112 total) 1m MaxRSS:89M")).toBe(112);
  expect(testsRun("+- run test 7 pass 12ms MaxRSS:8M")).toBe(7);
  expect(testsRun("+- run test success\nBuild Summary: 0/0 tests passed")).toBe(0);
});
