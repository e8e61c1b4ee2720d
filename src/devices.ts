/**
 * Decides on what a picture is drawn, from the flags and the machine. Fewer GPUs than ranks is an
 * error, never a silent fall-back: who asked for four GPUs wants to know that one is missing.
 */
import { BasedXLError } from "./errors.ts";
import type { DeviceInfo } from "./native/session.ts";

export const deviceNames = ["auto", "cpu", "cuda"] as const;
export type DeviceName = (typeof deviceNames)[number];

export interface DeviceChoice {
  device: "cpu";
  rankCount: number;
  /** One line that says what was chosen and why; null when the user chose it. */
  line: string | null;
}

/**
 * Throws `BasedXLError` "no-device" when there are some GPUs but fewer than `rankCount`, and for
 * `cuda`, which this version cannot draw with.
 */
export function chooseDevice(
  options: { device: DeviceName; rankCount: number },
  info: Pick<DeviceInfo, "gpuCount">,
): DeviceChoice {
  const { device, rankCount } = options;
  const { gpuCount } = info;
  const onCpu = rankCount === 1 ? "drawing on the CPU" : `drawing with ${rankCount} CPU ranks`;
  if (device === "cpu") return { device: "cpu", rankCount, line: null };
  if (gpuCount >= 1 && gpuCount < rankCount) {
    throw new BasedXLError(
      "no-device",
      `--gpus ${rankCount} asks for ${rankCount} GPUs and this machine has ${gpuCount}: ask for \
${gpuCount}, or add --device cpu to draw with ${rankCount} CPU ranks.`,
    );
  }
  if (device === "cuda") {
    throw new BasedXLError(
      "no-device",
      "--device cuda is not in this version yet: leave it out, or write --device cpu.",
    );
  }
  const line =
    gpuCount === 0
      ? `No GPU was found: ${onCpu}.`
      : `${gpuCount === 1 ? "1 GPU was" : `${gpuCount} GPUs were`} found, but this version cannot \
draw on GPUs yet: ${onCpu}.`;
  return { device: "cpu", rankCount, line };
}
