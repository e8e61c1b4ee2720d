/**
 * Which device draws, and what is said about it.
 */
import { expect, test } from "bun:test";
import { chooseDevice, type DeviceName } from "../src/devices.ts";

const choose = (device: DeviceName, rankCount: number, gpuCount: number) =>
  chooseDevice(
    { device, rankCount, dtype: "f32" },
    { gpuCount, hasBf16: false, cpuName: "Old CPU" },
  );

test("bf16 needs a CPU that has it", () => {
  const request = { device: "cpu", rankCount: 1, dtype: "bf16" } as const;
  const old = { gpuCount: 0, hasBf16: false, cpuName: "Old CPU" };
  expect(() => chooseDevice(request, old)).toThrow(
    "--dtype bf16 needs a CPU with AVX512_BF16, which this one (Old CPU) has not got: leave it " +
      "out to draw in f32.",
  );
  expect(chooseDevice(request, { ...old, hasBf16: true }).device).toBe("cpu");
});

test.each([
  ["auto", 1, 0, "No GPU was found: drawing on the CPU."],
  ["auto", 2, 0, "No GPU was found: drawing with 2 CPU ranks."],
  ["auto", 1, 1, "1 GPU was found, but this version cannot draw on GPUs yet: drawing on the CPU."],
  [
    "auto",
    2,
    4,
    "4 GPUs were found, but this version cannot draw on GPUs yet: drawing with 2 CPU ranks.",
  ],
  ["cpu", 2, 0, null],
  ["cpu", 4, 1, null],
] as const)("%s, %d ranks, %d GPUs: %p", (device, rankCount, gpuCount, line) => {
  expect(choose(device, rankCount, gpuCount)).toEqual({ device: "cpu", rankCount, line });
});

test.each([
  [
    "auto",
    2,
    1,
    "--gpus 2 asks for 2 GPUs and this machine has 1: ask for 1, or add --device cpu to draw " +
      "with 2 CPU ranks.",
  ],
  [
    "cuda",
    8,
    4,
    "--gpus 8 asks for 8 GPUs and this machine has 4: ask for 4, or add --device cpu to draw " +
      "with 8 CPU ranks.",
  ],
  ["cuda", 1, 0, "--device cuda is not in this version yet: leave it out, or write --device cpu."],
  ["cuda", 2, 2, "--device cuda is not in this version yet: leave it out, or write --device cpu."],
] as const)("%s, %d ranks, %d GPUs is refused", (device, rankCount, gpuCount, message) => {
  expect(() => choose(device, rankCount, gpuCount)).toThrow(message);
});
