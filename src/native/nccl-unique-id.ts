/**
 * The ncclUniqueId of ranks in several processes: one process makes it and sends it to the others.
 */
import { ptr } from "bun:ffi";
import { ncclUniqueIdBytes, sizeOfBytes, writeBytes } from "./abi.ts";
import { bytesOf, check, library } from "./library.ts";

/**
 * A new id; this process must live until all have opened their sessions. `emulator` is the path of
 * a library that replaces NVIDIA's. Throws "no-device" where NCCL is missing, "gpu-failed".
 */
export function makeNcclUniqueId(emulator: string | null): Uint8Array {
  const path = new TextEncoder().encode(emulator ?? "");
  const bytes = new Uint8Array(sizeOfBytes);
  writeBytes(new DataView(bytes.buffer), 0, bytesOf(path));
  const id = new Uint8Array(ncclUniqueIdBytes);
  check(library().bxl_nccl_unique_id(ptr(bytes), ptr(id)));
  return id;
}
