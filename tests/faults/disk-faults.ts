/**
 * Disks that are full, dying or slow where a program writes, call by call.
 */
import { join } from "node:path";
import type { Fault } from "./fault.ts";
import type { Program } from "./programs.ts";

/** `errno` of the `first`th `call` and the `count - 1` next on files of the program's results. */
export function diskFault(
  { out }: Program,
  [call, errno, first, count]: readonly [call: string, errno: string, first: number, count: number],
): Fault {
  const which = count === 1 ? `${first}` : `${first} and the next`;
  return {
    name: errno === "slow" ? `each ${call} is slow` : `${errno} from ${call} ${which}`,
    apply: ({ calls, folder }) =>
      void calls.push(`${call}:${errno}:${first}:${count}:${join(folder, out)}`),
    ends: errno === "slow" ? null : new RegExp(`^error: .*${reasons[errno] ?? errno}`),
  };
}

/** Calls by which an image or latents are written: three files, one after the other. */
export const sampleDisk = [
  ["open", "ENOSPC", 1, 99],
  ["open", "EROFS", 2, 1],
  ["open", "EMFILE", 3, 1],
  ["write", "ENOSPC", 1, 99],
  ["write", "ENOSPC", 2, 1],
  ["write", "ENOSPC", 3, 1],
  ["write", "EDQUOT", 2, 99],
  ["write", "EIO", 1, 1],
  ["sync", "EIO", 1, 1],
  ["sync", "EIO", 3, 1],
  ["sync", "ENOSPC", 2, 1],
  ["rename", "EIO", 1, 1],
  ["rename", "ENOSPC", 3, 1],
  ["rename", "EACCES", 2, 1],
  ["write", "slow", 1, 99],
] as const;

export const pullDisk = [
  ["write", "ENOSPC", 1, 99],
  ["write", "ENOSPC", 3, 1],
  ["write", "EIO", 3, 1],
  ["open", "EMFILE", 1, 1],
  ["open", "EROFS", 1, 99],
  ["rename", "EIO", 1, 1],
  ["rename", "EIO", 2, 1],
  ["mkdir", "ENOSPC", 1, 99],
  ["sync", "EIO", 1, 1],
  ["write", "slow", 1, 20],
] as const;

export const extractionDisk = [
  ["open", "ENOSPC", 2, 99],
  ["write", "ENOSPC", 1, 99],
  ["write", "EIO", 2, 1],
  ["sync", "EIO", 1, 1],
  ["rename", "ENOSPC", 2, 1],
  ["mkdir", "ENOSPC", 2, 1],
] as const;

// --- internal ---

/** Where a sentence says it in words. */
const reasons: Record<string, string> = {
  ENOSPC: "(ENOSPC|disk is full)",
  EROFS: "(EROFS|read-only)",
  EACCES: "(EACCES|permission)",
};
