/**
 * Asks the driver, in a process of its own: a driver that hangs or crashes must not take `doctor`
 * along. The child runs the command of probe-command.ts, which prints a ProbeResult as JSON.
 */
import { type DeviceInfo, probeDevice } from "../native/session.ts";
import { findDriver } from "./driver.ts";
import type { GpuFacts, Problem } from "./report.ts";

/** What the child found or failed at; `answered` is false where it did not come back. */
export type ProbeResult = { facts: GpuFacts } | { problem: Problem; answered: boolean };

/**
 * The child's side. What the library tells of vendor libraries, memory and copies between GPUs
 * belongs here once it tells: every fact that is null below has its place in report.ts already.
 */
export function collectGpuFacts(): ProbeResult {
  let info: DeviceInfo;
  try {
    info = probeDevice();
  } catch (error) {
    const advice = "See the library's line above.";
    return { problem: { what: (error as Error).message, advice }, answered: true };
  }
  const gpus = Array.from({ length: info.gpuCount }, (_, index) => ({
    index,
    // The library names the first one only.
    name: index === 0 ? info.gpuName : null,
    architecture: null,
    memoryBytes: null,
    freeBytes: null,
  }));
  return { facts: { driver: findDriver(process.env), libraries: null, gpus, peers: null } };
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
      // Told below, like an exit code.
    }
  }
  const timedOut = child.signalCode === "SIGKILL" && performance.now() - startMs >= limitMs;
  const seconds = (limitMs / 1000).toFixed(0);
  const ended = child.signalCode ? `was ended by ${child.signalCode}` : "failed";
  return {
    problem: {
      what: timedOut
        ? `The driver did not answer within ${seconds} s.`
        : `Asking the driver ${ended}.`,
      advice:
        "See whether `nvidia-smi` answers; if not, restart the machine or reinstall the driver. " +
        "Until then: --device cpu.",
    },
    answered: false,
  };
}
