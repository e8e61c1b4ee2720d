/**
 * The choice of the device, and the messages about it.
 */
import { expect, test } from "bun:test";
import { chooseDevice, type DeviceOptions, deviceDefaults } from "../../src/devices.ts";
import type { Device } from "../../src/settings/names.ts";
import { asFlag, asProperty, type Naming } from "../../src/settings/values.ts";

const info = (gpuCount: number, cudaKernels = "sm_90") => ({
  gpuCount,
  gpuName: gpuCount > 0 ? "NVIDIA X" : "",
  cudaKernels,
  hasBf16: false,
  cpuName: "Old CPU",
});
const choose = (
  device: Device,
  rankCount: number,
  machine: ReturnType<typeof info>,
  more: Partial<DeviceOptions> = {},
  naming: Naming = asFlag,
) => {
  const options = { ...deviceDefaults, device, rankCount, ...more };
  return chooseDevice(options, machine, () => "emulator.so", naming);
};

test.each([
  ["auto", 1, info(0), "No GPU was found: using the CPU."],
  ["auto", 2, info(0), "No GPU was found: using 2 CPU ranks."],
  [
    "auto",
    2,
    info(4, ""),
    "4 GPUs were found, but this build has no CUDA kernels (nvcc was not there): using " +
      "2 CPU ranks.",
  ],
  ["cpu", 2, info(0), null],
  ["cpu", 4, info(1), null],
] as const)("%s, %d ranks, %p: on the CPU, %p", (device, rankCount, machine, line) => {
  const expected = { device: "cpu" as const, rankCount, dtype: "f32" as const, gpu: null, line };
  expect(choose(device, rankCount, machine)).toEqual(expected);
});

test.each([
  ["auto", 1, info(1), "Using NVIDIA X."],
  ["auto", 2, info(4), "Using 2 GPUs (NVIDIA X)."],
  ["cuda", 4, info(4), null],
] as const)("%s, %d ranks, %p: on GPUs, %p", (device, rankCount, machine, line) => {
  const gpu = {
    dtype: "f16" as const,
    share: false,
    transport: "auto" as const,
    attention: "auto" as const,
    fp16Accumulate: false,
    graphs: true,
    library: null,
  };
  const expected = { device: "cuda" as const, rankCount, dtype: "f32" as const, gpu, line };
  expect(choose(device, rankCount, machine)).toEqual(expected);
});

test("the flags for GPUs arrive, and the emulator needs no GPU", () => {
  const more = { dtype: "bf16", shareGpu: true, cudaGraphs: false, transport: "peer" } as const;
  const { gpu } = choose("cuda-emulated", 4, info(0), more);
  expect(gpu).toEqual({
    dtype: "bf16",
    share: true,
    transport: "peer",
    attention: "auto",
    fp16Accumulate: false,
    graphs: false,
    library: "emulator.so",
  });
  expect(choose("cuda", 4, info(1), { shareGpu: true }).gpu?.share).toBe(true);
});

test.each([
  [
    "auto",
    2,
    info(1),
    "--gpus 2 asks for 2 GPUs and this machine has 1: ask for 1, add --share-gpu to run several " +
      "ranks on one, or --device cpu to use 2 CPU ranks.",
  ],
  [
    "cuda",
    8,
    info(4),
    "--gpus 8 asks for 8 GPUs and this machine has 4: ask for 4, add --share-gpu to run several " +
      "ranks on one, or --device cpu to use 8 CPU ranks.",
  ],
  [
    "cuda",
    1,
    info(0),
    "--device cuda needs an NVIDIA GPU and its driver, and none was found: leave it out, or " +
      "choose --device cpu.",
  ],
  [
    "cuda",
    1,
    info(1, ""),
    "1 GPU was found, but this build has no CUDA kernels (nvcc was not there): install the CUDA " +
      "toolkit and run again, or choose --device cpu.",
  ],
] as const)("%s, %d ranks, %p is refused", (device, rankCount, machine, message) => {
  expect(() => choose(device, rankCount, machine)).toThrow(message);
});

test("refusals name settings as they were given", () => {
  expect(() => choose("auto", 2, info(1), {}, asProperty)).toThrow(
    "rankCount 2 asks for 2 GPUs and this machine has 1: ask for 1, add shareGpu to run several " +
      "ranks on one, or device cpu to use 2 CPU ranks.",
  );
});

test.each([
  ["cpu", {}, "--fp16-accumulate is for GPUs: the CPU sums in f32. Leave it out."],
  [
    "cuda",
    { dtype: "bf16" },
    "--fp16-accumulate sums f16 numbers: it goes with --dtype f16, not bf16.",
  ],
  [
    "cuda",
    { dtype: "int8" },
    "--fp16-accumulate sums f16 numbers: it goes with --dtype f16, not int8.",
  ],
] as const)("--device %s --fp16-accumulate with %p is refused", (device, more, message) => {
  expect(() => choose(device, 1, info(1), { fp16Accumulate: true, ...more })).toThrow(message);
});

test.each([
  [
    "cpu",
    "f16",
    "--dtype f16 is for GPUs: the CPU computes in f32, bf16 or int8. Choose one, or leave it out.",
  ],
  [
    "cpu",
    "bf16",
    "--dtype bf16 needs a CPU with AVX512_BF16, which this one (Old CPU) lacks: leave it " +
      "out to compute in f32.",
  ],
  [
    "cuda",
    "f32",
    "--dtype f32 is for the CPU: GPUs compute in f16, bf16 or int8. Choose one, or leave it out.",
  ],
] as const)("--device %s --dtype %s is refused", (device, dtype, message) => {
  expect(() => choose(device, 1, info(1), { dtype })).toThrow(message);
});

test("bf16 on a CPU that has it", () => {
  const machine = { ...info(0), hasBf16: true };
  expect(choose("cpu", 1, machine, { dtype: "bf16" })).toMatchObject({ dtype: "bf16", gpu: null });
});
