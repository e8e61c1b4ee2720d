/**
 * Chooses the devices of an image from the settings and the machine. Fewer GPUs than ranks is an
 * error, never a silent fall-back: a user who asks for four GPUs must hear that one is missing.
 */
import { BasedXLError } from "./errors.ts";
import type { DeviceInfo } from "./native/device-info.ts";
import type { GpuOptions } from "./native/handle.ts";
import type { Attention, CpuDtype, Device, Dtype, Transport } from "./settings/names.ts";
import { asProperty, type Naming } from "./settings/values.ts";

export interface DeviceOptions {
  device: Device;
  rankCount: number;
  /** undefined = f32 on the CPU, f16 on GPUs. */
  dtype: Dtype | undefined;
  shareGpu: boolean;
  cudaGraphs: boolean;
  transport: Transport;
  attention: Attention;
  fp16Accumulate: boolean;
}

/** Where no setting says otherwise. */
export const deviceDefaults: DeviceOptions = {
  device: "auto",
  rankCount: 1,
  dtype: undefined,
  shareGpu: false,
  cudaGraphs: true,
  transport: "auto",
  attention: "auto",
  fp16Accumulate: false,
};

type MachineInfo = Pick<DeviceInfo, "gpuCount" | "gpuName" | "cudaKernels" | "hasBf16" | "cpuName">;

export interface DeviceChoice {
  device: "cpu" | "cuda";
  rankCount: number;
  /** Of products on CPU ranks; GPUs know int8 alone of these. */
  dtype: CpuDtype;
  /** null on the CPU. */
  gpu: GpuOptions | null;
  /** One line that says what was chosen and why; null when the user chose it. */
  line: string | null;
}

/**
 * Throws `BasedXLError` "no-device" when there are fewer GPUs than ranks, unless they may share or
 * there is none at all and none was asked for; "bad-option" for types that a device does not have.
 * `emulator` finds the library that stands in for a GPU in tests; `naming` names settings in
 * refusals.
 */
export function chooseDevice(
  options: DeviceOptions,
  info: MachineInfo,
  emulator: () => string,
  naming: Naming = asProperty,
): DeviceChoice {
  const { device, rankCount } = options;
  const { gpuCount } = info;
  if (device === "cpu") return onCpu(options, info, naming, null);
  if (device === "cuda-emulated") return onGpus(options, emulator(), naming, null);
  const ranks = rankCount === 1 ? "using the CPU" : `using ${rankCount} CPU ranks`;
  if (device === "auto" && gpuCount === 0) {
    return onCpu(options, info, naming, `No GPU was found: ${ranks}.`);
  }
  if (gpuCount === 0) {
    throw new BasedXLError(
      "no-device",
      `${naming("device")} cuda needs an NVIDIA GPU and its driver, and none was found: leave it \
out, or choose ${naming("device")} cpu.`,
    );
  }
  if (gpuCount < rankCount && !options.shareGpu) {
    throw new BasedXLError(
      "no-device",
      `${naming("rankCount")} ${rankCount} asks for ${rankCount} GPUs and this machine has \
${gpuCount}: ask for ${gpuCount}, add ${naming("shareGpu")} to run several ranks on one, or \
${naming("device")} cpu to use ${rankCount} CPU ranks.`,
    );
  }
  if (info.cudaKernels === "") {
    const found = gpuCount === 1 ? "1 GPU was found" : `${gpuCount} GPUs were found`;
    const sentence = `${found}, but this build has no CUDA kernels (nvcc was not there)`;
    if (device === "auto") return onCpu(options, info, naming, `${sentence}: ${ranks}.`);
    throw new BasedXLError(
      "no-device",
      `${sentence}: install the CUDA toolkit and run again, or choose ${naming("device")} cpu.`,
    );
  }
  const used = Math.min(rankCount, gpuCount);
  const where = used === 1 ? info.gpuName : `${used} GPUs (${info.gpuName})`;
  return onGpus(options, null, naming, device === "auto" ? `Using ${where}.` : null);
}

/** What `--dtype` says of the chosen devices. */
export function dtypeOf({ dtype, gpu }: Pick<DeviceChoice, "dtype" | "gpu">): Dtype {
  return gpu === null || dtype === "int8" ? dtype : gpu.dtype;
}

// --- internal ---

function onCpu(
  { rankCount, dtype = "f32", fp16Accumulate }: DeviceOptions,
  info: MachineInfo,
  naming: Naming,
  line: string | null,
): DeviceChoice {
  if (dtype === "f16") {
    throw new BasedXLError(
      "bad-option",
      `${naming("dtype")} f16 is for GPUs: the CPU computes in f32, bf16 or int8. Choose one, or \
leave it out.`,
    );
  }
  if (dtype === "bf16" && !info.hasBf16) {
    throw new BasedXLError(
      "no-device",
      `${naming("dtype")} bf16 needs a CPU with AVX512_BF16, which this one (${info.cpuName}) \
lacks: leave it out to compute in f32.`,
    );
  }
  if (fp16Accumulate) {
    throw new BasedXLError(
      "bad-option",
      `${naming("fp16Accumulate")} is for GPUs: the CPU sums in f32. Leave it out.`,
    );
  }
  return { device: "cpu", rankCount, dtype, gpu: null, line };
}

function onGpus(
  { rankCount, dtype, shareGpu, cudaGraphs, transport, attention, fp16Accumulate }: DeviceOptions,
  library: string | null,
  naming: Naming,
  line: string | null,
): DeviceChoice {
  if (dtype === "f32") {
    throw new BasedXLError(
      "bad-option",
      `${naming("dtype")} f32 is for the CPU: GPUs compute in f16, bf16 or int8. Choose one, or \
leave it out.`,
    );
  }
  if (fp16Accumulate && (dtype === "bf16" || dtype === "int8")) {
    throw new BasedXLError(
      "bad-option",
      `${naming("fp16Accumulate")} sums f16 numbers: it goes with ${naming("dtype")} f16, not \
${dtype}.`,
    );
  }
  const inInt8 = dtype === "int8";
  const gpu = {
    // Int8 is of linear layers alone.
    dtype: inInt8 ? ("f16" as const) : (dtype ?? "f16"),
    share: shareGpu,
    transport,
    attention,
    fp16Accumulate,
    graphs: cudaGraphs,
    library,
  };
  return { device: "cuda", rankCount, dtype: inInt8 ? "int8" : "f32", gpu, line };
}
