/**
 * Faults of one session, in a process of their own (session-run.ts): ranks that throw or stall,
 * calls of emulated GPUs and of NCCL, memory and threads of the library while it opens a model or
 * generates.
 */

import fc from "fast-check";
import type { EmulatedCall } from "../../src/native/testing.ts";
import { sampled } from "../support/seed.ts";
import type { libraryCalls } from "./tools.ts";

export type Devices = "cpu" | "nccl" | "peer";

/** Where among all calls of a kind, from 0 to 1. */
export type Place = number;

export interface SessionFaults {
  rank?: { kind: "fail" | "stall"; rank: number; step: number };
  call?: { call: EmulatedCall; gpu: number; at: Place };
  /** `lasts`: all calls after it fail too. */
  library?: { call: (typeof libraryCalls)[number]; at: Place; lasts: boolean };
  /** Whether the library's fault strikes while the session opens. */
  opening?: boolean;
}

export interface SessionRow {
  name: string;
  devices: Devices;
  faults: SessionFaults;
  ends: RegExp;
  code: RegExp;
  /** Whether it may do without what failed. */
  mayPass?: boolean;
  /** Whether another session is needed afterwards. */
  isLost?: boolean;
}

// Weights that cannot be mapped are named.
const noMemory = { ends: /[Mm]emory|threads/, code: /no-memory|no-device|bad-weights/ };
const died = { ends: /^(cu\w+|ncclGroupEnd) failed: .*rank \d/, code: /gpu-failed/ };

const places = sampled(
  fc.array(fc.integer({ min: 0, max: 999 }), { minLength: 64, maxLength: 64 }),
  1,
);
let next = 0;
const place = (): Place => (places[0]?.[next++ % 64] ?? 0) / 1000;

function ofRank(kind: "fail" | "stall", devices: Devices, rank: number, step: number): SessionRow {
  const ends = kind === "fail" ? `Rank ${rank} failed at step ${step}` : `Rank ${rank} stalled at`;
  return {
    ...{
      name: `rank ${rank} ${kind === "fail" ? "throws" : "stalls"} at step ${step}, ${devices}`,
    },
    ...{
      devices,
      faults: { rank: { kind, rank, step } },
      ends: new RegExp(ends),
      code: /rank-failed/,
    },
  };
}

function ofCall(devices: "nccl" | "peer", call: EmulatedCall, gpu: number): SessionRow {
  const faults = { call: { call, gpu, at: place() } };
  return { name: `${call} fails on GPU ${gpu}, ${devices}`, devices, faults, ...died };
}

/** A crash, after which every call of the context fails, or a GPU that is gone. */
function ofContext(devices: "nccl" | "peer", call: "kernel" | "device", gpu: number): SessionRow {
  const name = call === "kernel" ? `a kernel crashes on GPU ${gpu}` : `GPU ${gpu} is lost`;
  return { ...ofCall(devices, call, gpu), name: `${name}, ${devices}`, isLost: true };
}

function ofLibrary(
  call: "memory" | "mapping" | "thread",
  opening: boolean,
  lasts: boolean,
  count: number,
): SessionRow[] {
  const what = `no ${call} ${opening ? "to open" : "to generate"}, ${lasts ? "from" : "at"}`;
  return Array.from({ length: count }, (_, index) => ({
    name: `${what} place ${index + 1}`,
    ...{ devices: "cpu", faults: { library: { call, at: place(), lasts }, opening } },
    ...{ ...noMemory, mayPass: true },
  }));
}

export const sessionRows: readonly SessionRow[] = [
  ...[ofRank("fail", "cpu", 0, 1), ofRank("fail", "cpu", 2, 3), ofRank("stall", "cpu", 1, 2)],
  ...[ofCall("nccl", "launch_kernel", 0), ofCall("nccl", "launch_kernel", 1)],
  ...[ofCall("nccl", "nccl_group", 0), ofCall("nccl", "nccl_group", 1)],
  ...[ofCall("nccl", "event_record", 1), ofCall("nccl", "copy_to_device", 0)],
  ...[ofCall("nccl", "copy_from_device", 0), ofCall("peer", "copy_peer", 1)],
  ...[ofCall("peer", "stream_wait_event", 0), ofCall("peer", "launch_kernel", 0)],
  ...[ofContext("nccl", "kernel", 1), ofContext("peer", "kernel", 0)],
  ...[ofContext("nccl", "device", 0), ofContext("peer", "device", 1)],
  ...ofLibrary("memory", true, false, 12),
  ...ofLibrary("memory", true, true, 4),
  ...ofLibrary("memory", false, false, 12),
  ...ofLibrary("memory", false, true, 4),
  ...ofLibrary("mapping", true, false, 2),
  ...ofLibrary("thread", true, false, 2),
  ...ofLibrary("thread", false, false, 2),
];

/** Two at once: whichever is told first. */
export const sessionPairs: readonly SessionRow[] = [
  pair(ofRank("fail", "cpu", 1, 2), ofLibrary("memory", false, false, 1)[0]!),
  pair(ofRank("stall", "cpu", 0, 3), ofLibrary("memory", false, true, 1)[0]!),
  pair(ofRank("fail", "nccl", 0, 2), ofCall("nccl", "nccl_group", 1)),
  pair(ofCall("peer", "copy_peer", 0), ofLibrary("memory", false, false, 1)[0]!),
  pair(ofCall("nccl", "launch_kernel", 1), ofLibrary("memory", false, true, 1)[0]!),
];

// --- internal ---

function pair(one: SessionRow, other: SessionRow): SessionRow {
  const either = (a: RegExp, b: RegExp) => new RegExp(`${a.source}|${b.source}`);
  return {
    name: `${one.name}, and ${other.name}`,
    devices: one.devices === "cpu" ? other.devices : one.devices,
    faults: { ...one.faults, ...other.faults },
    ends: either(one.ends, other.ends),
    code: either(one.code, other.code),
    mayPass: one.mayPass && other.mayPass,
  };
}
