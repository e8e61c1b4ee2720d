/**
 * CPU, memory and operating system. Thread count and instruction set come from the native library;
 * the rest is read from the system's files.
 */
import { readFileSync } from "node:fs";
import { cpus, release } from "node:os";
import type { DeviceInfo } from "../native/device-info.ts";
import { gigabytes, type Line, note, ok, type Section } from "./report.ts";

/** CPU features that the kernels or image codecs use, with Linux's names. */
const features = [
  ...["sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_bf16", "amx_bf16"],
  ...["asimd", "asimdhp", "bf16", "i8mm", "sve"],
];

/** `info` is null where the native library did not load. */
export function machineSection(info: DeviceInfo | null): Section {
  const name = info?.cpuName || (cpus()[0]?.model ?? "unknown");
  const coreCount = info?.coreCount ?? cpus().length;
  const found = cpuFeatures(textOf("/proc/cpuinfo"));
  const quota = coreQuota(textOf("/sys/fs/cgroup/cpu.max"));
  const memory = info?.memoryAvailable ?? 0;
  const glibc = glibcVersion();
  const system = [`${process.platform} ${release()}`, process.arch, glibc && `glibc ${glibc}`];
  return {
    title: "Machine",
    lines: [
      ok("CPU", `${name.trim()}, ${count(coreCount, "core")}`),
      ...(found.length > 0 ? [ok("features", found.join(" "))] : []),
      ...quotaLine(quota, coreCount),
      memory > 0 ? ok("memory", `${gigabytes(memory)} available`) : note("memory", "unknown"),
      ok("system", system.filter(Boolean).join(", ")),
    ],
    facts: {
      cpu: name.trim(),
      cores: coreCount,
      core_quota: quota,
      features: found,
      memory_available: memory || null,
      platform: process.platform,
      arch: process.arch,
      kernel: release(),
      glibc,
    },
  };
}

/** The members of `features` that /proc/cpuinfo lists. */
export function cpuFeatures(cpuinfo: string): string[] {
  const line = /^(?:flags|Features)\s*:(.*)$/m.exec(cpuinfo)?.[1] ?? "";
  const there = new Set(line.trim().split(/\s+/));
  return features.filter((name) => there.has(name));
}

/** The CPU quota of the control group (version 2), in cores; null for no limit. */
export function coreQuota(cpuMax: string): number | null {
  const [quota = "max", period = ""] = cpuMax.trim().split(/\s+/);
  const cores = Number(quota) / Number(period);
  return Number.isFinite(cores) && cores > 0 ? cores : null;
}

export function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

/** A small text file; "" where there is none. */
export function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

// --- internal ---

function quotaLine(quota: number | null, coreCount: number): Line[] {
  if (quota === null || quota >= coreCount) return [];
  const threads = Math.max(1, Math.round(quota));
  const text = `this container has a CPU quota of ${quota.toFixed(1)} cores: --threads ${threads}`;
  return [note("limit", text)];
}

function glibcVersion(): string | null {
  const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } };
  return report?.header?.glibcVersionRuntime ?? null;
}
