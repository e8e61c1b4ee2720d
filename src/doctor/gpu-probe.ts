/**
 * Queries the driver in a child process, so that a driver that hangs or crashes does not affect
 * `doctor`. The child runs the command of probe-command.ts, which prints a ProbeResult as JSON.
 */
import { type GpuReport, gpuReport } from "../native/gpu-report.ts";
import { findDriver } from "./driver.ts";
import type { GpuFacts, Problem } from "./report.ts";

/** The child's result or its failure; `answered` is false where the child did not finish. */
export type ProbeResult = { facts: GpuFacts } | { problem: Problem; answered: boolean };

/** The time limit of one copy from GPU to GPU: 64 MiB, after the GPU was started. */
const peerLimitMs = 5000;

/** Runs in the child: queries the library for all GPU facts. */
export function collectGpuFacts(): ProbeResult {
  let report: GpuReport;
  try {
    report = gpuReport({ peerLimitMs, emulator: "" });
  } catch (error) {
    const advice = "See the library's line above.";
    return { problem: { what: (error as Error).message, advice }, answered: true };
  }
  return { facts: { driver: findDriver(process.env), ...factsOf(report) } };
}

/** Converts the library's report to the facts of `doctor`. */
export function factsOf({ libraries, gpus, peers }: GpuReport): Omit<GpuFacts, "driver"> {
  return {
    libraries: libraries
      // The driver has its own line; list it here only where it has a problem.
      .filter(({ name, what, is_absent }) => name !== driverName || (what !== "" && !is_absent))
      .map(({ name, needed_for, version, path, is_absent, ...wrong }) => ({
        name,
        neededFor: needed_for,
        version,
        path,
        problem: is_absent && optional.has(name) ? null : problemOf(wrong),
      })),
    gpus: gpus.map(({ index, name, architecture, memory_bytes, free_bytes }) => ({
      index,
      name,
      architecture,
      memoryBytes: memory_bytes,
      freeBytes: free_bytes,
    })),
    peers: peers.map(({ from, to, direct, bytes_per_second, ...wrong }) => ({
      from,
      to,
      direct,
      bytesPerSecond: bytes_per_second,
      problem: problemOf(wrong),
    })),
  };
}

/** Runs `command` (the program with `probeCommand`) and waits at most `limitMs` for it. */
export async function probeGpus(command: string[], limitMs: number): Promise<ProbeResult> {
  const child = Bun.spawn(command, {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "ignore",
    timeout: limitMs,
    killSignal: "SIGKILL",
  });
  const startMs = performance.now();
  const text = await new Response(child.stdout).text();
  const exitCode = await child.exited;
  if (exitCode === 0) {
    try {
      return JSON.parse(text) as ProbeResult;
    } catch {
      // Reported below, like an exit code.
    }
  }
  const timedOut = child.signalCode === "SIGKILL" && performance.now() - startMs >= limitMs;
  const seconds = (limitMs / 1000).toFixed(0);
  const ended = child.signalCode ? `was ended by ${child.signalCode}` : "failed";
  return {
    problem: {
      what: timedOut
        ? `The driver did not answer within ${seconds} s.`
        : `The driver query ${ended}.`,
      advice:
        "See whether `nvidia-smi` answers; if not, restart the machine or reinstall the driver. " +
        "Until then: --device cpu.",
    },
    answered: false,
  };
}

// --- internal ---

const driverName = "the driver";
/** Libraries that most machines do not need. */
const optional = new Set(["NCCL"]);

function problemOf({ what, advice }: { what: string; advice: string }): Problem | null {
  if (what === "") return null;
  return { what: sentence(what), advice: sentence(advice) };
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
