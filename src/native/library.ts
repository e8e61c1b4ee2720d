/**
 * Opens libbasedxl. Only this folder imports bun:ffi. FFI calls block the event loop, so every
 * function of the library returns at once; its own threads do the work.
 */
import { dlopen, type Pointer, ptr } from "bun:ffi";
import { existsSync } from "node:fs";
import { BasedXLError, type ErrorCode, escaped } from "../errors.ts";
import { resources } from "../resources.ts";
import { abiVersion, type Bytes, functions, Status } from "./abi.ts";
import { loadFailure } from "./load-failure.ts";

type Symbols = ReturnType<typeof dlopen<typeof functions>>["symbols"];

let opened: Symbols | null = null;

/** The library's functions; opened at the first call. Throws "setup" where it cannot be loaded. */
export function library(): Symbols {
  opened ??= open();
  return opened;
}

/** Throws the error of `status` with the library's message, unless it is ok. */
export function check(status: number, session: Pointer | null = null, sessionLost = false): void {
  if (status === Status.ok) return;
  const message = lastError(session) || sentences[status] || unknown;
  const error = new BasedXLError(codes[status] ?? "internal", message);
  error.sessionLost = sessionLost || status === Status.session_lost;
  throw error;
}

type Values = Uint8Array | Int32Array | Float32Array | BigUint64Array;

/** Address and length of `values`, which must stay alive until the call returns. */
export function bytesOf(values: Values | null): Bytes {
  if (!values || values.byteLength === 0) return { address: 0n, len: 0n };
  return { address: BigInt(ptr(values)), len: BigInt(values.byteLength) };
}

/** A buffer for a struct of `size` bytes, with the size in its first field. */
export function structBuffer(size: number): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, size, true);
  return { bytes, view };
}

/** Builds what `device` needs beyond the set-up: the library of "cuda-emulated", in a clone. */
export async function prepareDevice(
  device: string | undefined,
  report: (line: string) => void,
): Promise<void> {
  if (device === "cuda-emulated") await resources.buildEmulator(report);
}

/** Path of the emulated GPU library for tests; throws "setup" where it has not been built. */
export function emulatorPath(): string {
  const path = resources.emulator();
  if (path === null) {
    throw new BasedXLError(
      "bad-option",
      "--device cuda-emulated is for tests in a clone, which builds what it needs: leave it out.",
    );
  }
  if (existsSync(path)) return path;
  throw new BasedXLError("setup", `${path} is missing: \`bun run build:emulator\` builds it.`);
}

/** Message of the last error, of a session or (null) of calls without one. */
export function lastError(session: Pointer | null): string {
  const buffer = new Uint8Array(1024);
  const length = library().bxl_last_error(session, ptr(buffer), BigInt(buffer.length));
  const sentence = new TextDecoder().decode(buffer.subarray(0, Number(length)));
  return escaped(sentence);
}

/** Warnings about everything that was ignored in a session's model files. */
export function warningsOf(session: Pointer): string[] {
  return sentencesOf(library().bxl_session_warnings, session);
}

/** How a session keeps weights that its files have in 8 bits. */
export function weightNotesOf(session: Pointer): string[] {
  return sentencesOf(library().bxl_session_weight_notes, session);
}

// --- internal ---

type TextCall = (session: Pointer, buffer: Pointer | null, size: bigint) => bigint;

function sentencesOf(copy: TextCall, session: Pointer): string[] {
  const size = copy(session, null, 0n);
  if (size === 0n) return [];
  const bytes = new Uint8Array(Number(size));
  copy(session, ptr(bytes), size);
  const sentences = new TextDecoder().decode(bytes).split("\0").slice(0, -1);
  return sentences.map((sentence) => escaped(sentence));
}

const unknown = "The native library failed and gave no reason.";

const codes: Record<number, ErrorCode> = {
  [Status.bad_argument]: "internal",
  [Status.bad_config]: "bad-model",
  [Status.bad_weights]: "bad-weights",
  [Status.no_memory]: "no-memory",
  [Status.not_finite]: "not-finite",
  [Status.cancelled]: "cancelled",
  [Status.not_ready]: "internal",
  [Status.no_threads]: "no-device",
  [Status.internal]: "internal",
  [Status.rank_failed]: "rank-failed",
  [Status.gpu_failed]: "gpu-failed",
  [Status.library_missing]: "no-device",
  [Status.session_lost]: "gpu-failed",
};

/** Messages for errors of which the library has none. */
const sentences: Record<number, string> = {
  [Status.no_memory]: "The memory ran out. Choose a smaller size or fewer ranks.",
  [Status.cancelled]: "Stopped before the image was done.",
  [Status.not_ready]: "The session is busy with another image.",
  [Status.session_lost]:
    "An earlier failure ended this session: a GPU crashed or did not answer, processes lost each \
other, or weights were changed or lost. Start again; CUDA_VISIBLE_DEVICES can leave a GPU out.",
  [Status.no_threads]: "The system gave no threads: too many processes, or a limit (ulimit -u).",
};

function open(): Symbols {
  const path = libraryPath();
  let symbols: Symbols;
  try {
    symbols = dlopen(path, functions).symbols;
  } catch (error) {
    throw new BasedXLError("setup", loadFailure(path, (error as Error).message));
  }
  const version = symbols.bxl_abi_version();
  if (version !== abiVersion) {
    throw new BasedXLError(
      "setup",
      `${path} has interface ${version} and this program needs ${abiVersion}: delete it and run \
again.`,
    );
  }
  return symbols;
}

function libraryPath(): string {
  const path = resources.nativeLibrary();
  if (existsSync(path)) return path;
  throw new BasedXLError("setup", `${path} is missing: ${resources.rebuildHint}.`);
}
