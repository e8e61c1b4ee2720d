/**
 * Types of `doctor`'s report: facts for scripts, and lines for people. A fact that is unknown is
 * null, never a guess.
 */

/** Facts of the driver and its libraries; collected by gpu-probe.ts in a child process. */
export interface GpuFacts {
  driver: DriverFacts;
  /** null: this version does not look for them. */
  libraries: VendorLibrary[] | null;
  gpus: Gpu[];
  /** Every ordered pair of GPUs; null: this version does not test them. */
  peers: Peer[] | null;
}

export interface DriverFacts {
  /** Path of libcuda, null where none was found. */
  path: string | null;
  /** Version of the kernel module, such as "550.54.15"; null where none is loaded. */
  version: string | null;
  /** NVIDIA devices on the PCI bus; null where the system does not report them. */
  devicesOnBus: number | null;
}

/** cuBLASLt, cuDNN or NCCL. */
export interface VendorLibrary {
  name: string;
  neededFor: string;
  version: string | null;
  path: string | null;
  /** The problem and its remedy; null where there is none. */
  problem: Problem | null;
}

export interface Gpu {
  index: number;
  /** null where only the number of GPUs is known. */
  name: string | null;
  architecture: string | null;
  memoryBytes: number | null;
  freeBytes: number | null;
}

/** A copy from one GPU to another, tested under a time limit. */
export interface Peer {
  from: number;
  to: number;
  /** Whether the driver supports peer-to-peer access. */
  direct: boolean;
  bytesPerSecond: number | null;
  problem: Problem | null;
}

export interface Problem {
  /** Description, as a sentence. */
  what: string;
  /** Remedy, as a sentence. */
  advice: string;
}

/** "note" is information; "problem" is shown red, with its advice. */
export type Line =
  | { state: "ok" | "note"; label: string; text: string }
  | { state: "problem"; label: string; text: string; advice: string };

export interface Section {
  title: string;
  lines: Line[];
  /** The same facts for scripts. */
  facts: Record<string, unknown>;
}

/** A section by its key in `--json`. */
export type Report = Record<string, Section>;

export function ok(label: string, text: string): Line {
  return { state: "ok", label, text };
}

export function note(label: string, text: string): Line {
  return { state: "note", label, text };
}

export function problem(label: string, { what, advice }: Problem): Line {
  return { state: "problem", label, text: what, advice };
}

export function problemsOf(report: Report): Problem[] {
  return Object.values(report).flatMap(({ lines }) =>
    lines.flatMap((line) =>
      line.state === "problem" ? [{ what: line.text, advice: line.advice }] : [],
    ),
  );
}

/** 1.5e9 as "1.5 GB". */
export function gigabytes(bytes: number): string {
  return bytes < 1e8 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}
