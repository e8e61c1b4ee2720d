/**
 * Collects the report. A section that throws becomes a problem line, since `doctor` runs on broken
 * machines.
 */
import { type DeviceInfo, probeDevice } from "../native/device-info.ts";
import { resources } from "../resources.ts";
import { choiceSection } from "./choice.ts";
import { probeGpus } from "./gpu-probe.ts";
import { gpuSection } from "./gpus.ts";
import { machineSection } from "./machine.ts";
import { modelSection } from "./models.ts";
import { probeCommand } from "./probe-command.ts";
import { programSection } from "./program.ts";
import { problem, type Report, type Section } from "./report.ts";

/** Never rejects, and ends some seconds after `gpuLimitMs` at the latest. */
export async function collectReport(gpuLimitMs: number): Promise<Report> {
  const probe = await probeGpus(commandOf(probeCommand), gpuLimitMs);
  // A driver that did not answer the probe process would not answer this one either.
  const hangs = "problem" in probe && !probe.answered;
  const info = hangs ? new Error(probe.problem.what) : deviceInfo();
  const known = info instanceof Error ? null : info;
  const kernels = resources.versions().cudaKernels ?? known?.cudaKernels ?? null;
  return {
    machine: await section("Machine", () => machineSection(known)),
    program: await section("Program", () => programSection(info)),
    gpus: await section("GPUs", () => gpuSection(probe, kernels, process.env)),
    models: await section("Models", () => modelSection(process.env)),
    choice: await section("Defaults of sample", () => choiceSection(known)),
  };
}

// --- internal ---

function deviceInfo(): DeviceInfo | Error {
  try {
    return probeDevice();
  } catch (error) {
    return error as Error;
  }
}

async function section(title: string, make: () => Section | Promise<Section>): Promise<Section> {
  try {
    return await make();
  } catch (error) {
    const what = `This section failed: ${(error as Error).message}.`;
    const advice = "Please report it with the output of doctor --json.";
    return { title, lines: [problem("", { what, advice })], facts: {} };
  }
}

/** The command that runs this program: the binary itself, or Bun with its script. */
function commandOf(name: string): string[] {
  const [, script = ""] = process.argv;
  return resources.isBinary ? [process.execPath, name] : [process.execPath, script, name];
}
