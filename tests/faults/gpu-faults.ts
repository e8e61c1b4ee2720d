/**
 * Emulated GPUs whose memory is too small, whose kernels crash, whose peers cannot be reached.
 */
import type { Fault } from "./fault.ts";

function emulated(name: string, env: Record<string, string>, ends: RegExp | null): Fault {
  return { name, apply: (run) => void Object.assign(run.env, env), ends };
}

export const gpuFaults: readonly Fault[] = [
  emulated("GPUs have 24 MiB", { BASEDXL_EMULATOR_MEMORY_MIB: "24" }, /^error: .*memory/),
  emulated(
    "a kernel crashes",
    { BASEDXL_EMULATOR_CRASH: "group_norm_apply_f16" },
    /^error: .*(GPU|cu\w+ failed)/,
  ),
  emulated("peer copies garble", { BASEDXL_EMULATOR_PEERS: "garbles" }, null),
  emulated("peer copies hang", { BASEDXL_EMULATOR_PEERS: "hangs" }, null),
];
