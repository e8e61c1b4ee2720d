/**
 * What a process holds, as Linux counts it.
 */
import { readdirSync, readFileSync } from "node:fs";

export interface ProcessUsage {
  /** Resident bytes: all, those of no file, those of mapped files. */
  residentBytes: number;
  anonymousBytes: number;
  fileBytes: number;
  threadCount: number;
  /** Open file descriptors. */
  handleCount: number;
  /** Mapped regions of memory. */
  regionCount: number;
}

export function usageOf(pid: number): ProcessUsage {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const numberOf = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(status)![1]);
  return {
    residentBytes: 1024 * numberOf("VmRSS"),
    anonymousBytes: 1024 * numberOf("RssAnon"),
    fileBytes: 1024 * numberOf("RssFile"),
    threadCount: numberOf("Threads"),
    handleCount: readdirSync(`/proc/${pid}/fd`).length,
    regionCount: readFileSync(`/proc/${pid}/maps`, "utf8").split("\n").length - 1,
  };
}
