/**
 * What makes calls of a program fail: `inject-faults` (system calls, zig/faults/syscalls.zig), the
 * library for LD_PRELOAD (libbasedxl's calls into libc, zig/faults/preload.zig), and `faulty-disk`
 * (a folder's files, also where they are mapped, zig/faults/disk.zig).
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { zigBuild } from "../support/zig.ts";

const output = join(import.meta.dir, "../../zig-out");
export const injector = join(output, "bin/inject-faults");
const disk = join(output, "bin/faulty-disk");
const library = join(output, "lib/libbasedxl_faults.so");

/** Of calls of the library: memory it asks for, mappings, threads; and the clock of the process. */
export const libraryCalls = ["memory", "mapping", "thread", "clock"] as const;
/** Of a disk, in the order of zig/faults/passed_folder.zig. */
const diskCalls = ["read", "write", "sync", "look", "slow", "forget"] as const;

/**
 * From which call on, from 1, and how many; for the clock, by how many milliseconds it jumps, for
 * `slow` how many a read takes more, for what fails on a disk errno (default EIO).
 */
interface Chosen {
  first: number;
  count?: number;
  value?: number;
}
type Faults<Call extends string> = Partial<Record<Call, Chosen>>;
export type LibraryFaults = Faults<(typeof libraryCalls)[number]>;
export type DiskFaults = Faults<(typeof diskCalls)[number]>;

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

/** Why no folder can be put on a disk that fails; null where one can, once the tools are built. */
export function noFaultyDiskReason(): string | null {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-disk-"));
  const choices = join(folder, "choices");
  const command = onFaultyDisk(folder, { choices, suffix: "", faults: {} }, ["/bin/true"]);
  const { exitCode } = Bun.spawnSync(command, { stderr: "ignore", timeout: 10_000 });
  rmSync(folder, { recursive: true });
  return exitCode === 0 ? null : "nobody may mount a file system of a program (/dev/fuse, root)";
}

/** The command for which a folder is on a disk that has these faults; `choices` is a file. */
export function onFaultyDisk(
  folder: string,
  { choices, suffix, faults }: { choices: string; suffix: string; faults: DiskFaults },
  command: string[],
): string[] {
  writeFileSync(choices, "");
  chooseDiskFaults(choices, faults);
  return [disk, folder, choices, suffix, ...command];
}

/** The file at `path`, and the variables of a program whose calls it decides on. */
export function libraryFaults(path: string, faults: LibraryFaults): Record<string, string> {
  chooseLibraryFaults(path, faults);
  return { BASEDXL_FAULTS: path, LD_PRELOAD: library };
}

/** Also while the program runs: it has the file mapped, and counts from now on. */
export function chooseLibraryFaults(path: string, faults: LibraryFaults): void {
  choose(path, libraryCalls, faults);
}

export function chooseDiskFaults(path: string, faults: DiskFaults): void {
  choose(path, diskCalls, faults);
}

/** Calls of a kind so far, and how many of them have failed. */
export function libraryCounts(path: string, call: keyof LibraryFaults): Counts {
  return countsAt(path, libraryCalls.indexOf(call));
}

export function diskCounts(path: string, call: keyof DiskFaults): Counts {
  return countsAt(path, diskCalls.indexOf(call));
}

// --- internal ---

interface Counts {
  calls: number;
  hits: number;
}

/** Entries of zig/faults/choices.zig: five words of 8 bytes for each kind of call. */
const entryBytes = 40;

function choose<Call extends string>(
  path: string,
  calls: readonly Call[],
  faults: Faults<Call>,
): void {
  const bytes = Buffer.alloc(entryBytes * calls.length);
  for (const [index, call] of calls.entries()) {
    const { first = 0, count = 1, value = 0 } = faults[call] ?? {};
    bytes.writeBigUInt64LE(BigInt(first), index * entryBytes);
    bytes.writeBigUInt64LE(BigInt(count), index * entryBytes + 8);
    bytes.writeBigInt64LE(BigInt(value), index * entryBytes + 32);
  }
  // In place: the mapping is of this file, not of its name.
  writeFileSync(path, bytes, { flag: "r+" });
}

function countsAt(path: string, index: number): Counts {
  const bytes = readFileSync(path);
  const at = index * entryBytes;
  return {
    calls: Number(bytes.readBigUInt64LE(at + 16)),
    hits: Number(bytes.readBigUInt64LE(at + 24)),
  };
}
