/**
 * The library's report on GPUs: NVIDIA's libraries, each GPU's memory, copies between every pair.
 * It starts the driver, which may hang: call it in a separate process.
 */
import { ptr } from "bun:ffi";
import * as v from "valibot";
import { BasedXLError } from "../errors.ts";
import { sizeOfGpuReportOptions, writeGpuReportOptions } from "./abi.ts";
import { bytesOf, library, structBuffer } from "./library.ts";

const count = v.pipe(v.number(), v.integer(), v.minValue(0));

const gpuReportSchema = v.object({
  libraries: v.array(
    v.object({
      name: v.string(),
      needed_for: v.string(),
      version: v.nullable(v.string()),
      path: v.nullable(v.string()),
      /** The problem and the advice, without full stops; "" for none. */
      what: v.string(),
      advice: v.string(),
      /** Whether the library is missing, rather than unusable. */
      is_absent: v.boolean(),
    }),
  ),
  gpus: v.array(
    v.object({
      index: count,
      name: v.nullable(v.string()),
      architecture: v.nullable(v.string()),
      memory_bytes: v.nullable(count),
      free_bytes: v.nullable(count),
    }),
  ),
  /** Every ordered pair of GPUs, up to the first copy that did not end. */
  peers: v.array(
    v.object({
      from: count,
      to: count,
      direct: v.boolean(),
      bytes_per_second: v.nullable(v.number()),
      what: v.string(),
      advice: v.string(),
    }),
  ),
});

export type GpuReport = v.InferOutput<typeof gpuReportSchema>;

export interface GpuReportOptions {
  /** Time limit of one copy between GPUs. */
  peerLimitMs: number;
  /** Path of the emulated libraries, for tests; "" for NVIDIA's. */
  emulator: string;
}

/** Throws "internal" where the library returns no report. */
export function gpuReport({ peerLimitMs, emulator }: GpuReportOptions): GpuReport {
  const options = structBuffer(sizeOfGpuReportOptions);
  const path = new TextEncoder().encode(emulator);
  writeGpuReportOptions(options.view, 0, { peerLimitMs, emulator: bytesOf(path) });
  const text = new Uint8Array(textBytesMax);
  const length = library().bxl_gpu_report(ptr(options.bytes), ptr(text), BigInt(text.length));
  if (length === 0n) {
    throw new BasedXLError("internal", "The native library gave no report of the GPUs.");
  }
  const json = new TextDecoder().decode(text.subarray(0, Number(length)));
  return v.parse(gpuReportSchema, JSON.parse(json));
}

// --- internal ---

/** Sixteen GPUs have 240 pairs of some 120 bytes each. */
const textBytesMax = 256 * 1024;
