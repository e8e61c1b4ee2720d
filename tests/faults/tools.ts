/**
 * What makes calls of a program fail: `inject-faults` (system calls, zig/faults/syscalls.zig) and
 * the library for LD_PRELOAD (libbasedxl's calls into libc, zig/faults/preload.zig).
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { zigBuild } from "../support/zig.ts";

const output = join(import.meta.dir, "../../zig-out");
export const injector = join(output, "bin/inject-faults");
const library = join(output, "lib/libbasedxl_faults.so");

/** Of calls of the library: memory it asks for, mappings, threads; and the clock of the process. */
export const libraryCalls = ["memory", "mapping", "thread", "clock"] as const;
type LibraryCall = (typeof libraryCalls)[number];

/** From which call on, from 1, and how many; for the clock, by how many milliseconds it jumps. */
interface Chosen {
  first: number;
  count?: number;
  value?: number;
}
export type LibraryFaults = Partial<Record<LibraryCall, Chosen>>;

/** Why no system call can be made to fail here; null where the tools are built and work. */
export async function noToolsReason(): Promise<string | null> {
  if (process.platform !== "linux") return "the tools are for Linux";
  const { exitCode, stderr } = await zigBuild("fault-tools");
  if (exitCode !== 0) return `zig build fault-tools fails: ${stderr}`;
  const trial = [
    injector,
    "/dev/null",
    "rename:EIO:1:1:/nowhere",
    "--",
    process.execPath,
    "--version",
  ];
  const run = Bun.spawnSync(trial, { stdout: "ignore" });
  return run.exitCode === 0 ? null : "the kernel asks nobody about system calls (seccomp)";
}

/** Entries of zig/faults/preload.zig: five words of 8 bytes for each kind of call. */
const entryBytes = 40;

/** The file at `path`, and the variables of a program whose calls it decides on. */
export function libraryFaults(path: string, faults: LibraryFaults): Record<string, string> {
  chooseLibraryFaults(path, faults);
  return { BASEDXL_FAULTS: path, LD_PRELOAD: library };
}

/** Also while the program runs: it has the file mapped, and counts from now on. */
export function chooseLibraryFaults(path: string, faults: LibraryFaults): void {
  const bytes = Buffer.alloc(entryBytes * libraryCalls.length);
  for (const [index, call] of libraryCalls.entries()) {
    const { first = 0, count = 1, value = 0 } = faults[call] ?? {};
    bytes.writeBigUInt64LE(BigInt(first), index * entryBytes);
    bytes.writeBigUInt64LE(BigInt(count), index * entryBytes + 8);
    bytes.writeBigInt64LE(BigInt(value), index * entryBytes + 32);
  }
  // In place: the mapping is of this file, not of its name.
  writeFileSync(path, bytes, { flag: "r+" });
}

/** Calls of a kind so far, and how many of them have failed. */
export function libraryCounts(path: string, call: LibraryCall): { calls: number; hits: number } {
  const bytes = readFileSync(path);
  const at = libraryCalls.indexOf(call) * entryBytes;
  return {
    calls: Number(bytes.readBigUInt64LE(at + 16)),
    hits: Number(bytes.readBigUInt64LE(at + 24)),
  };
}
