/**
 * Decides on what a picture is drawn, from the flags and the machine. Fewer GPUs than ranks is an
 * error, never a silent fall-back: who asked for four GPUs wants to know that one is missing.
 */
import type { Dtype } from "./dtype.ts";
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
 * Throws `BasedXLError` "no-device" when there are some GPUs but fewer than `rankCount`, for
 * `cuda`, which this version cannot draw with, and for bf16 on a CPU without its instructions.
 */
export function chooseDevice(
  options: { device: DeviceName; rankCount: number; dtype?: Dtype },
  info: Pick<DeviceInfo, "gpuCount" | "hasBf16" | "cpuName">,
): DeviceChoice {
  const { device, rankCount } = options;
  const { gpuCount } = info;
  if (options.dtype === "bf16" && !info.hasBf16) {
    throw new BasedXLError(
      "no-device",
      `--dtype bf16 needs a CPU with AVX512_BF16, which this one (${info.cpuName}) has not got: \
leave it out to draw in f32.`,
    );
  }
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
