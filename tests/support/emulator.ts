/**
 * The GPU path without a GPU, for tests: the emulator, built once, and its device options.
 */
import type { GpuOptions } from "../../src/native/handle.ts";
import { emulatorPath } from "../../src/native/library.ts";
import { buildEmulator } from "../../src/setup/emulator.ts";

await buildEmulator(() => {});

/** What sessions and parts take as `gpu`; ranks may share the emulator's two GPUs. */
export function emulated(options: Partial<GpuOptions> = {}): GpuOptions {
  const library = emulatorPath();
  return {
    dtype: "f16",
    share: true,
    transport: "auto",
    fp16Accumulate: false,
    graphs: true,
    library,
    ...options,
  };
}
