/**
 * What ranks of several processes meet by: NCCL's unique id, made by one process and given to all.
 */
import { ptr } from "bun:ffi";
import { ncclUniqueIdBytes, sizeOfBytes, writeBytes } from "./abi.ts";
import { bytesOf, check, library } from "./library.ts";

/**
 * A new id; this process must live until all have opened their sessions. `emulator` answers in
 * place of NVIDIA's libraries. Throws "no-device" where NCCL is missing, "gpu-failed".
 */
export function makeNcclUniqueId(emulator: string | null): Uint8Array {
  const path = new TextEncoder().encode(emulator ?? "");
  const bytes = new Uint8Array(sizeOfBytes);
  writeBytes(new DataView(bytes.buffer), 0, bytesOf(path));
  const id = new Uint8Array(ncclUniqueIdBytes);
  check(library().bxl_nccl_unique_id(ptr(bytes), ptr(id)));
  return id;
}
