/**
 * The library's report of GPUs as parsed by TypeScript and as shown by `doctor`.
 */
import { describe, expect, test } from "bun:test";
import { factsOf } from "../../src/doctor/gpu-probe.ts";
import { type GpuReport, gpuReport } from "../../src/native/gpu-report.ts";

test("a library that cannot be opened is reported with advice", () => {
  const emulator = "no/such/emulator.so";
  const report = gpuReport({ peerLimitMs: 1000, emulator });
  expect(report.libraries.map(({ name }) => name)).toEqual([
    "the driver",
    "cuBLASLt",
    "cuDNN",
    "NCCL",
  ]);
  for (const library of report.libraries) {
    expect(library).toMatchObject({ version: null, path: null });
    expect(library.what).toContain(emulator);
    expect(library.advice).toContain("zig build emulator");
  }
  expect(report).toMatchObject({ gpus: [], peers: [] });
});

test("this machine's own libraries: each is found, or missing with its advice", () => {
  const { libraries } = factsOf(gpuReport({ peerLimitMs: 1000, emulator: "" }));
  for (const { name, path, problem } of libraries ?? []) {
    if (path === null && name !== "NCCL") expect(problem?.advice).toContain("pip install");
    if (path !== null) expect(problem).toBeNull();
  }
  expect(libraries?.length).toBeGreaterThanOrEqual(3);
});

describe("in doctor's words", () => {
  const fine = { what: "", advice: "" };
  const wrong = { what: "x was not found", advice: "`pip install x` brings it" };
  const library = { needed_for: "y", version: null, path: null };
  const report: GpuReport = {
    libraries: [
      { ...library, ...wrong, name: "the driver", is_absent: true },
      { ...library, ...wrong, name: "cuDNN", is_absent: true },
      { ...library, ...wrong, name: "NCCL", is_absent: true },
      { ...library, ...wrong, name: "NCCL", is_absent: false },
    ],
    gpus: [{ index: 0, name: "H", architecture: "sm_90", memory_bytes: 9, free_bytes: 8 }],
    peers: [
      { ...fine, from: 0, to: 1, direct: true, bytes_per_second: 1e9 },
      { ...wrong, from: 1, to: 0, direct: true, bytes_per_second: null },
    ],
  };
  const problem = { what: "X was not found.", advice: "`pip install x` brings it." };

  test("an absent driver has its own line, an absent NCCL is no problem, a broken one is", () => {
    const { libraries } = factsOf(report);
    expect(libraries?.map((each) => [each.name, each.problem])).toEqual([
      ["cuDNN", problem],
      ["NCCL", null],
      ["NCCL", problem],
    ]);
  });

  test("memory and copies", () => {
    const { gpus, peers } = factsOf(report);
    expect(gpus).toEqual([
      { index: 0, name: "H", architecture: "sm_90", memoryBytes: 9, freeBytes: 8 },
    ]);
    expect(peers).toEqual([
      { from: 0, to: 1, direct: true, bytesPerSecond: 1e9, problem: null },
      { from: 1, to: 0, direct: true, bytesPerSecond: null, problem },
    ]);
  });
});
