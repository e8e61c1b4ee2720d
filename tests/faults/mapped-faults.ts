/**
 * Disks of weights that are slow or dying while the weights are mapped: reading a page then raises
 * SIGBUS, where a call would fail with EIO. Also those of what a program writes.
 */
import type { Fault } from "./fault.ts";
import { type Run, recordsOf } from "./run.ts";
import { chooseDiskFaults, type DiskFaults, diskCounts } from "./tools.ts";

export const weights = ".safetensors";
/** More calls than a run has. */
const all = 1e15;
/** Every call from now on. */
export const dies = { first: 1, count: all };

interface Where {
  /** Of the run's folder. */
  folder: string;
  /** How the names end of the files that the fault concerns. */
  suffix: string;
}

/** From the start of the program on. */
function onDisk(name: string, where: Where, faults: DiskFaults, ends: RegExp | null): Fault {
  const apply: Fault["apply"] = (run) => void Object.assign(run, { disk: { ...where, faults } });
  return { name, apply, ends };
}

/** While the program generates: what the disk has read is forgotten, as where memory is short. */
function meanwhile(name: string, where: Where, faults: DiskFaults, ends: RegExp | null): Fault {
  const apply: Fault["apply"] = (run) => {
    Object.assign(run, { disk: { ...where, faults: {} } });
    run.during.push(() => chooseDiskFaults(recordsOf(run.folder).choices, faults));
  };
  return { name, apply, ends };
}

/** Resolves once the kernel has forgotten what it has read of a run's disk, which has `faults`. */
export async function forgets({ folder }: Run, faults: DiskFaults): Promise<void> {
  const { choices } = recordsOf(folder);
  chooseDiskFaults(choices, { ...faults, forget: { first: 1 } });
  for (let i = 0; diskCounts(choices, "forget").hits === 0; i++) {
    if (i === 2000) throw new Error("the disk does not forget");
    await Bun.sleep(5);
  }
}

export const unreadable = /could not be read any more while it was in use/;
const ended = (file: string) => new RegExp(`^error: .*${file}.*(${unreadable.source}|EIO)`);

/** Of a program whose weights, in files called so, lie in a folder of its run. */
export function loadingFaults(folder: string, file: string, reads: readonly number[]): Fault[] {
  const where = { folder, suffix: weights };
  return [
    onDisk("the disk of mapped weights is slow", where, { slow: { ...dies, value: 5 } }, null),
    ...reads.map((first) =>
      onDisk(
        `the disk of mapped weights dies at read ${first}`,
        where,
        { read: { first, count: all } },
        ended(file),
      ),
    ),
    {
      ...onDisk("a read of mapped weights fails", where, { read: { first: 1 } }, ended(file)),
      // The kernel reads ahead, and reads again what it could not.
      mayPass: true,
    },
  ];
}

const model = { folder: "model", suffix: weights };
const forget = { first: 1 };

/** Of a run that lasts. */
export const mappedMeanwhile: readonly Fault[] = [
  meanwhile(
    "the disk of mapped weights gets slow",
    model,
    { slow: { ...dies, value: 5 }, forget },
    null,
  ),
  meanwhile("the disk of mapped weights dies", model, { read: dies, forget }, ended(weights)),
  meanwhile(
    "the disk of mapped weights is gone",
    model,
    { read: dies, look: dies, forget },
    ended(weights),
  ),
  meanwhile("the disk of cached weights dies", model, { read: dies }, null),
];

const out = { folder: "out", suffix: "" };
const noSpace = 28;

/** Of what a program writes to `out`. */
export const writtenFaults: readonly Fault[] = [
  onDisk("the results' disk dies", out, { write: dies }, /^error: Cannot write .*EIO/),
  onDisk(
    "the results' disk is full",
    out,
    { write: { ...dies, value: noSpace } },
    /^error: Cannot write .*(ENOSPC|full)/,
  ),
  onDisk(
    "the results' disk is full at the third write",
    out,
    { write: { first: 3, count: all, value: noSpace } },
    /^error: Cannot write .*(ENOSPC|full)/,
  ),
  onDisk("the results' disk flushes nothing", out, { sync: dies }, /^error: Cannot write .*EIO/),
];
