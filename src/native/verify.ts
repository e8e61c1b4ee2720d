/**
 * The library's comparison of a GPU with the CPU (zig/verify.zig): its own threads compute, and its
 * text is fetched as it comes.
 */
import { type Pointer, ptr } from "bun:ffi";
import { sizeOfVerifyOptions, VerifyState, writeVerifyOptions } from "./abi.ts";
import { bytesOf, check, library, structBuffer } from "./library.ts";

export interface VerifyOptions {
  quick: boolean;
  json: boolean;
  /** Of the first draw of every operation. */
  seed: bigint;
  /** Only checks whose name contains this; "" for all. */
  only: string;
  /** Path of the emulated libraries, for tests; "" for NVIDIA's. */
  emulator: string;
}

/** Runs it, gives text to `write` as it comes, and resolves to whether everything agrees. */
export async function verifyGpu(
  options: VerifyOptions,
  write: (text: Uint8Array) => void,
): Promise<boolean> {
  const verification = start(options);
  const buffer = new Uint8Array(bufferSize);
  for (;;) {
    const state = library().bxl_verify_state(verification);
    const length = Number(library().bxl_verify_read(verification, ptr(buffer), BigInt(bufferSize)));
    if (length > 0) write(buffer.slice(0, length));
    else if (state === VerifyState.running) await Bun.sleep(pollMs);
    else {
      library().bxl_verify_free(verification);
      return state === VerifyState.passed;
    }
  }
}

// --- internal ---

const pollMs = 20;
const bufferSize = 64 * 1024;

function start({ quick, json, seed, only, emulator }: VerifyOptions): Pointer {
  const { bytes, view } = structBuffer(sizeOfVerifyOptions);
  const texts = [only, emulator].map((text) => new TextEncoder().encode(text)) as [
    Uint8Array,
    Uint8Array,
  ];
  writeVerifyOptions(view, 0, {
    isQuick: quick,
    isJson: json,
    seed,
    only: bytesOf(texts[0]),
    emulator: bytesOf(texts[1]),
  });
  const out = new BigUint64Array(1);
  check(library().bxl_verify_open(ptr(bytes), ptr(out)));
  return Number(out[0]) as Pointer;
}
