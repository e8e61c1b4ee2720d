/**
 * Processor, memory and GPUs of this machine and the compiled kernels, as the native library
 * detects them.
 */
import { ptr } from "bun:ffi";
import type { CpuDtype } from "../settings/names.ts";
import { Compute, readCpuRates, readDeviceInfo, sizeOfCpuRates, sizeOfDeviceInfo } from "./abi.ts";
import { check, library, structBuffer } from "./library.ts";

export interface DeviceInfo {
  cpuName: string;
  /** Instruction set of the selected CPU kernels, such as "x86_64_v4". */
  instructionSet: string;
  coreCount: number;
  /** Whether the CPU can compute in bf16. */
  hasBf16: boolean;
  gpuCount: number;
  /** The first GPU's name, "" without one. */
  gpuName: string;
  /** Architectures of the CUDA kernels compiled in, "" for a build without nvcc. */
  cudaKernels: string;
  /** Bytes; 0 where the system does not report them. */
  memoryAvailable: number;
}

/** Asks the library, which returns at once. Throws "setup" where it cannot be loaded. */
export function probeDevice(): DeviceInfo {
  const { bytes, view } = structBuffer(sizeOfDeviceInfo);
  check(library().bxl_device_info(ptr(bytes)));
  const info = readDeviceInfo(view, 0);
  return {
    ...info,
    hasBf16: info.hasBf16 !== 0,
    memoryAvailable: Number(info.memoryAvailable),
  };
}

/** What so many threads of the CPU reach, 0 for one per core; measured in some 30 ms. */
export function cpuRates(dtype: CpuDtype, threadCount: number) {
  const { bytes, view } = structBuffer(sizeOfCpuRates);
  check(library().bxl_cpu_rates(Compute[dtype], threadCount, ptr(bytes)));
  const { flopsPerSecond, bytesPerSecond } = readCpuRates(view, 0);
  return { flopsPerSecond: Number(flopsPerSecond), bytesPerSecond: Number(bytesPerSecond) };
}
