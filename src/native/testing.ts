/**
 * Functions of the library for tests and benches: single components of a model, the dry run that
 * reports memory and operations, and torch's random numbers. All arrays are f32 in NCHW, as in
 * PyTorch.
 */
import { dlopen, ptr } from "bun:ffi";
import { BasedXLError } from "../errors.ts";
import type { CpuDtype } from "../settings/names.ts";
import type { Emphasis } from "./abi.ts";
import {
  type GpuOptions,
  NativeHandle,
  type NativeModel,
  smallestOptions,
  type TokenPair,
  tokenBytes,
} from "./handle.ts";
import { bytesOf, emulatorPath, library } from "./library.ts";

export interface NoisePredictionInput {
  /** (batch, channels, rows, width) */
  sample: Float32Array;
  batch: number;
  latentRows: number;
  latentWidth: number;
  timestep: number;
  /** (batch, tokens, cross_attention_dim) */
  promptEmbeds: Float32Array;
  /** (batch, projection_size) */
  pooled: Float32Array;
  /** (batch, 6): original height and width, crop top and left, target height and width. */
  timeIds: Float32Array;
}

/** Defaults: one thread per core, the CPU. */
export interface PartsOptions {
  threadCount?: number;
  dtype?: CpuDtype;
  gpu?: GpuOptions | null;
  /** Convolutions with fewer multiplications, as in image requests. */
  winograd?: boolean;
}

interface PartsEmphasis {
  emphasis?: keyof typeof Emphasis;
  empty?: TokenPair | null;
}

const noRows = { rows: new Float32Array(), rows2: new Float32Array() };

export class ModelParts {
  private constructor(
    private readonly handle: NativeHandle,
    /** Rows and columns of the smallest latent. */
    private readonly unit: number,
    private readonly winograd: boolean,
  ) {}

  static async open(
    model: NativeModel,
    { threadCount = 0, dtype = "f32", gpu = null, winograd = false }: PartsOptions = {},
  ): Promise<ModelParts> {
    const unit = 2 ** (Number(model.config.unet.levelCount) - 1);
    const handle = await NativeHandle.open(
      { ...smallestOptions(model, unit), threadCount, gpu, dtype },
      {},
    );
    return new ModelParts(handle, unit, winograd);
  }

  /**
   * Prompts that take turns in an image, or one: hidden states (prompts, tokens, channels), pooled
   * outputs (prompts, projection_size).
   * `injected`: rows of each encoder for ids beyond its vocabulary. `empty`: where weights
   * interpolate from the empty prompt, its tokens.
   */
  async promptEmbeds(
    tokens: TokenPair | readonly TokenPair[],
    injected: { rows: Float32Array; rows2: Float32Array } = noRows,
    { emphasis = "original", empty = null }: PartsEmphasis = {},
  ): Promise<{ promptEmbeds: Float32Array; pooled: Float32Array }> {
    const promptBytes = tokenBytes([tokens].flat());
    const emptyBytes = tokenBytes(empty === null ? [] : [empty]);
    const { rows, rows2 } = injected;
    await this.handle.run(
      {
        kind: "prompt_embeds",
        latentRows: this.unit,
        latentWidth: this.unit,
        prompts: bytesOf(promptBytes),
        injected: bytesOf(rows),
        injected2: bytesOf(rows2),
        emphasis,
        empty: bytesOf(emptyBytes),
      },
      [tokens, promptBytes, rows, rows2, empty, emptyBytes],
      {},
    );
    return {
      promptEmbeds: new Float32Array(this.handle.read("prompt_embeds")),
      pooled: new Float32Array(this.handle.read("pooled")),
    };
  }

  /** One call of the UNet, as in diffusers; the time is that of the UNet only. */
  async noisePrediction(
    input: NoisePredictionInput,
  ): Promise<{ output: Float32Array; milliseconds: number }> {
    const { batch, latentRows, latentWidth, timestep } = input;
    const done = await this.handle.run(
      {
        kind: "noise_prediction",
        winograd: this.winograd,
        latentRows,
        latentWidth,
        batch,
        timestep,
        sample: bytesOf(input.sample),
        promptEmbeds: bytesOf(input.promptEmbeds),
        pooled: bytesOf(input.pooled),
        timeIdsList: bytesOf(input.timeIds),
      },
      [input],
      {},
    );
    return {
      output: new Float32Array(this.handle.read("noise_prediction")),
      milliseconds: Number(done.denoiseNs) / 1e6,
    };
  }

  /**
   * Decodes a latent, divided by the scaling factor, to the decoder's output, not clamped, and RGB;
   * in blended tiles where `vaeTileLatent` (rows and columns of the latent) is not 0.
   */
  async decode(
    latent: Float32Array,
    latentRows: number,
    latentWidth: number,
    vaeTileLatent = 0,
  ): Promise<{ image: Float32Array; rgb: Uint8Array; milliseconds: number }> {
    const sample = bytesOf(latent);
    const { winograd } = this;
    const size = { latentRows, latentWidth, vaeTileLatent };
    const job = { kind: "decode" as const, ...size, sample, winograd };
    const done = await this.handle.run(job, [latent], {});
    return {
      image: new Float32Array(this.handle.read("decoded")),
      rgb: new Uint8Array(this.handle.read("rgb")),
      milliseconds: Number(done.decodeNs) / 1e6,
    };
  }

  /** TAESD's image of a latent in the sampler's scale, of about -1 to 1. */
  async decodePreview(
    latent: Float32Array,
    latentRows: number,
    latentWidth: number,
  ): Promise<Float32Array> {
    const sample = bytesOf(latent);
    const job = { kind: "decode_preview" as const, latentRows, latentWidth, sample };
    await this.handle.run(job, [latent], {});
    return new Float32Array(this.handle.read("decoded"));
  }

  /**
   * Encodes an image of -1 to 1 to the mean of its latent, times the scaling factor; in blended
   * tiles where `vaeTileLatent` (rows and columns of the latent) is not 0.
   */
  async encode(
    image: Float32Array,
    latentRows: number,
    latentWidth: number,
    vaeTileLatent = 0,
  ): Promise<Float32Array> {
    const sample = bytesOf(image);
    const size = { latentRows, latentWidth, vaeTileLatent };
    const job = { kind: "encode" as const, ...size, sample };
    await this.handle.run(job, [image], {});
    return new Float32Array(this.handle.read("latents"));
  }

  close(): Promise<void> {
    return this.handle.close();
  }
}

/** `drawCount` times `torch.randn(length)` from `torch.Generator("cpu")` of `seed`, end to end. */
export function randomNormal(seed: bigint, drawCount: number, length: number): Float32Array {
  const out = new Float32Array(drawCount * length);
  if (out.length > 0) library().bxl_random_normal(seed, drawCount, ptr(out), BigInt(length));
  return out;
}

/** Makes the emulator have so many GPUs, while no session uses it. */
export function setEmulatedGpuCount(count: number): void {
  const { symbols } = dlopen(emulatorPath(), {
    bxl_emulator_configure: { args: ["u64", "u32"], returns: "i32" },
  });
  if (symbols.bxl_emulator_configure(1n, count) === 0) return;
  throw new BasedXLError("internal", `The emulator does not take ${count} GPUs.`);
}

/** Makes allocations of emulated GPUs of one size, from `bytesMin` on, one memory. */
export function shareEmulatedMemory(bytesMin: number): void {
  const { symbols } = dlopen(emulatorPath(), {
    bxl_emulator_share_memory: { args: ["u64"], returns: "void" },
  });
  symbols.bxl_emulator_share_memory(BigInt(bytesMin));
}

/** Bytes that the host has copied to an emulated GPU since a session opened it. */
export function bytesToEmulatedGpu(gpu: number): { pinned: number; pageable: number } {
  const { symbols } = dlopen(emulatorPath(), {
    bxl_emulator_bytes_to_gpu: { args: ["u32", "bool"], returns: "u64" },
  });
  const bytes = (isPinned: boolean) => Number(symbols.bxl_emulator_bytes_to_gpu(gpu, isPinned));
  return { pinned: bytes(true), pageable: bytes(false) };
}

/**
 * Sets ten times the compute capability of the emulator's GPUs, for all of the process; 0: that of
 * the GPU that `BASEDXL_EMULATOR_GPU` names.
 */
export function setEmulatedCapability(capability: number): void {
  const { symbols } = dlopen(emulatorPath(), {
    bxl_emulator_set_capability: { args: ["u32"], returns: "void" },
  });
  symbols.bxl_emulator_set_capability(capability);
}

/** Whether the emulator's GPUs reach each other's memory, for all of the process. */
export function setEmulatedPeers(possible: boolean): void {
  const { symbols } = dlopen(emulatorPath(), {
    bxl_emulator_set_peers: { args: ["bool"], returns: "void" },
  });
  symbols.bxl_emulator_set_peers(possible);
}

/** Calls that the emulator counts and fails: `Call` of zig/emulator/faults.zig, in its order. */
export const emulatedCalls = [
  "none",
  "launch_kernel",
  "event_record",
  "stream_wait_event",
  "begin_capture",
  "end_capture",
  "graph_launch",
  "copy_to_device",
  "copy_from_device",
  "nccl_group",
  "copy_peer",
  "kernel",
  "device",
] as const;
export type EmulatedCall = (typeof emulatedCalls)[number];

/** Makes the `index`th call of a kind for a GPU fail; `none` for none. Counts begin anew. */
export function failEmulatedCall(call: EmulatedCall, gpu = 0, index = 0): void {
  const { symbols } = dlopen(emulatorPath(), {
    bxl_emulator_fail_call: { args: ["u32", "u32", "u32"], returns: "i32" },
  });
  if (symbols.bxl_emulator_fail_call(emulatedCalls.indexOf(call), gpu, index) === 0) return;
  throw new BasedXLError("internal", `The emulator does not fail ${call} of GPU ${gpu}.`);
}

/** Calls of a kind for a GPU since `failEmulatedCall`. */
export function emulatedCallCount(call: EmulatedCall, gpu: number): number {
  const { symbols } = dlopen(emulatorPath(), {
    bxl_emulator_call_count: { args: ["u32", "u32"], returns: "u32" },
  });
  return symbols.bxl_emulator_call_count(emulatedCalls.indexOf(call), gpu);
}
