/**
 * Attention and norms spill no registers: checked with ptxas where nvcc exists, and in the tracked
 * table src/bench/kernels.md.
 */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { cascadedBar, measureSums, sdxlDepths } from "../../src/bench/support/cascaded.ts";
import {
  architectures,
  blocksPerMultiprocessor,
  kernelFiles,
  parsePtxas,
  resourcesOf,
} from "../../src/bench/support/kernel-resources.ts";
import { findNvcc } from "../../src/setup/compiler.ts";

const held = /attention|softmax|norm/;
/** Six architectures of the largest kernels: half a minute of two cores that do nothing else. */
const timeoutMs = 900_000;
const { nvcc } = findNvcc(process.env);

describe("attention and norm kernels spill nothing and keep no array in memory", () => {
  const files = kernelFiles().filter((file) => held.test(file));
  test("there are some", () => {
    expect(files).toContain("attention.cu");
  });

  test.skipIf(!nvcc)(
    "as reported by ptxas on every architecture",
    () => {
      const all = resourcesOf(nvcc!.path, files);
      const names = new Set(all.map(({ architecture }) => architecture));
      expect(names).toEqual(new Set(architectures().map((name) => `sm_${name}`)));
      const kernels = new Set(all.map(({ kernel }) => kernel));
      expect(kernels).toContain("attention_64_128_f16");
      expect(all.filter((entry) => entry.spilledBytes + entry.stackBytes > 0)).toEqual([]);
    },
    timeoutMs,
  );

  test("and in the repository's table", () => {
    const table = readFileSync(join(import.meta.dir, "../../src/bench/kernels.md"), "utf8");
    const rows = table.split("\n").filter((line) => held.test(line.split("|")[1] ?? ""));
    expect(rows.length).toBeGreaterThan(10);
    expect(rows.filter((row) => /spilled|stack/.test(row))).toEqual([]);
  });
});

test.each(sdxlDepths)("sums of $depth products in f16 stay within their bar", ({ depth }) => {
  const { cascaded, rounding } = measureSums(depth);
  expect(cascaded).toBeLessThanOrEqual(cascadedBar);
  // It is sums in f16 that are measured, not the result's own rounding.
  expect(cascaded).toBeGreaterThan(1.2 * rounding);
  const table = readFileSync(join(import.meta.dir, "../../src/bench/kernels.md"), "utf8");
  expect(table).toMatch(new RegExp(`\\| +${depth} \\|.*${cascaded.toExponential(1)}`));
});

test("what ptxas prints is read", () => {
  const report = [
    "ptxas info    : 0 bytes gmem",
    "ptxas info    : Compiling entry function 'norm_f16' for 'sm_86'",
    "ptxas info    : Function properties for norm_f16",
    "    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads",
    "ptxas info    : Used 168 registers, used 1 barriers, 64 bytes smem, 400 bytes cmem[0]",
    "ptxas info    : Compiling entry function 'norm_bf16' for 'sm_86'",
    "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads",
    "ptxas info    : Used 40 registers, used 0 barriers, 400 bytes cmem[0]",
  ].join("\n");
  expect(parsePtxas(report)).toEqual([
    {
      kernel: "norm_f16",
      architecture: "sm_86",
      registers: 168,
      spilledBytes: 20,
      stackBytes: 16,
      sharedBytes: 64,
    },
    {
      kernel: "norm_bf16",
      architecture: "sm_86",
      registers: 40,
      spilledBytes: 0,
      stackBytes: 0,
      sharedBytes: 0,
    },
  ]);
  expect(() => parsePtxas("Compiling entry function 'x' for 'sm_86'\nfatal")).toThrow("ptxas");
});

test("blocks per multiprocessor follow from registers, shared memory and warps", () => {
  const entry = { kernel: "", spilledBytes: 0, stackBytes: 0, architecture: "sm_86" };
  const blocks = (registers: number, sharedBytes: number, threads: number) =>
    blocksPerMultiprocessor({ ...entry, registers, sharedBytes, threads });
  expect(blocks(240, 0, 128)).toBe(2);
  expect(blocks(32, 48 * 1024, 128)).toBe(2);
  expect(blocks(16, 0, 256)).toBe(6);
  expect(blocks(16, 0, 32)).toBe(16);
});
