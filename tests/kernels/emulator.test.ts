/**
 * The CUDA path on the emulated driver: the emulator's own tests, and every operation against the
 * CPU backend.
 */
import { expect, test } from "bun:test";
import { zigBuild } from "../support/zig.ts";

/** The first run compiles all kernels as C++. */
const timeoutMs = 600_000;

test.skipIf(process.platform !== "linux")(
  "the CUDA path passes its tests on the emulated driver",
  () => {
    const { exitCode, stderr } = zigBuild("test-cuda", "--summary", "all");
    expect(exitCode, stderr).toBe(0);
    expect(stderr).toMatch(/\d+\/\d+ tests passed|\d+ pass/);
  },
  timeoutMs,
);
