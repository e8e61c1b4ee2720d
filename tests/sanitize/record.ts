/**
 * Records the calls of the C ABI: each struct with all memory that it leads to, as `zig/replay.zig`
 * reads them. Pointers are found by what they are: an address of this process's writable memory
 * with a length that ends within it.
 */
import { type Pointer, toArrayBuffer } from "bun:ffi";
import { readFileSync, writeFileSync } from "node:fs";
import { abiVersion, sizeOfRequest, sizeOfSessionOptions } from "../../src/native/abi.ts";
import { writableSymbols } from "./symbols.ts";

interface Call {
  kind: "open" | "submit" | "cancel" | "close";
  session: number;
  name: string;
  /** In base64; the first is the struct. */
  buffers: string[];
  pointers: { from: number; at: number; to: number }[];
}

export class Recorder {
  /** Of the calls that follow. */
  name = "";
  private readonly calls: Call[] = [];
  private readonly sessions: Pointer[] = [];
  private readonly stop: () => void;

  /** From here on. */
  constructor() {
    const symbols = writableSymbols();
    const before = { ...symbols };
    this.stop = () => void Object.assign(symbols, before);
    const { bxl_session_open: open, bxl_session_submit: submit } = symbols;
    const { bxl_session_cancel: cancel, bxl_session_close: close } = symbols;
    symbols.bxl_session_open = ((options: Pointer, out: Pointer) => {
      const memory = memoryAt(options, sizeOfSessionOptions);
      const status = open(options, out);
      if (status !== 0) return status;
      const session = Number(new DataView(toArrayBuffer(out, 0, 8)).getBigUint64(0, true));
      this.sessions.push(session as Pointer);
      this.add("open", session as Pointer, memory);
      return status;
    }) as typeof open;
    symbols.bxl_session_submit = ((session: Pointer, request: Pointer) => {
      const memory = memoryAt(request, sizeOfRequest);
      const status = submit(session, request);
      if (status === 0) this.add("submit", session, memory);
      return status;
    }) as typeof submit;
    symbols.bxl_session_cancel = ((session: Pointer) => {
      // Who cancels calls again until the job has ended.
      if (this.lastKindOf(session) !== "cancel") this.add("cancel", session, nothing);
      cancel(session);
    }) as typeof cancel;
    symbols.bxl_session_close = ((session: Pointer) => {
      this.add("close", session, nothing);
      close(session);
    }) as typeof close;
  }

  /** Records nothing more. */
  finish(path: string): void {
    this.stop();
    writeFileSync(path, JSON.stringify({ abi_version: abiVersion, calls: this.calls }));
  }

  private add(kind: Call["kind"], session: Pointer, memory: Memory): void {
    this.calls.push({ kind, session: this.indexOf(session), name: this.name, ...memory });
  }

  private lastKindOf(session: Pointer): Call["kind"] | undefined {
    const index = this.indexOf(session);
    return this.calls.findLast((call) => call.session === index)?.kind;
  }

  /** The newest of an address that was used again. */
  private indexOf(session: Pointer): number {
    return this.sessions.lastIndexOf(session);
  }
}

// --- internal ---

type Memory = Pick<Call, "buffers" | "pointers">;

const nothing: Memory = { buffers: [], pointers: [] };

/** A struct and what it leads to. */
function memoryAt(address: Pointer, length: number): Memory {
  const ranges = writableRanges();
  const memory: Memory = { buffers: [], pointers: [] };
  const add = (start: number, bytes: number): number => {
    const values = new DataView(toArrayBuffer(start as Pointer, 0, bytes).slice(0));
    const from = memory.buffers.push(Buffer.from(values.buffer).toString("base64")) - 1;
    for (let at = 0; at + 16 <= bytes; at += 8) {
      const target = values.getBigUint64(at, true);
      const end = target + values.getBigUint64(at + 8, true);
      if (end === target || !ranges.some((range) => range.start <= target && end <= range.end)) {
        continue;
      }
      memory.pointers.push({ from, at, to: add(Number(target), Number(end - target)) });
    }
    return from;
  };
  add(address, length);
  return memory;
}

function writableRanges(): { start: bigint; end: bigint }[] {
  const lines = readFileSync("/proc/self/maps", "utf8").matchAll(/^(\w+)-(\w+) rw/gm);
  return [...lines].map(([, start, end]) => ({
    start: BigInt(`0x${start}`),
    end: BigInt(`0x${end}`),
  }));
}
