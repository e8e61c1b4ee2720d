/**
 * The device, ranks and threads that `sample` uses on this machine without flags.
 */
import { chooseDevice, deviceDefaults } from "../devices.ts";
import type { DeviceInfo } from "../native/device-info.ts";
import { emulatorPath } from "../native/library.ts";
import { count } from "./machine.ts";
import { ok, problem, type Section } from "./report.ts";

export function choiceSection(info: DeviceInfo | null): Section {
  const title = "Defaults of sample";
  if (info === null) {
    const advice = "See the library's line above.";
    return { title, lines: [problem("device", { what: "Nothing.", advice })], facts: {} };
  }
  const { device, rankCount } = chooseDevice(deviceDefaults, info, emulatorPath);
  const threadCount = info.coreCount;
  const parts = [
    device.toUpperCase(),
    count(rankCount, "rank"),
    count(threadCount, "thread"),
    `${info.instructionSet} kernels`,
  ];
  const shared =
    info.gpuCount === 0
      ? "--gpus N: N CPU ranks that share these threads"
      : `--gpus N: up to ${info.gpuCount}`;
  return {
    title,
    lines: [ok("device", parts.join(", ")), ok("several", shared)],
    facts: { device, ranks: rankCount, threads: threadCount, kernels: info.instructionSet },
  };
}
