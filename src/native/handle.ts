/**
 * One session of the native library: open, submit, poll, read. The library's threads do the work;
 * this side sleeps between polls. An abort cancels the job, and the promise settles when it has
 * stopped.
 */
import { type Pointer, ptr } from "bun:ffi";
import { stopIfAborted } from "../errors.ts";
import type { Attention, CpuDtype, Transport } from "../settings/names.ts";
import {
  type Bytes,
  type ModelConfig,
  Output,
  type Progress,
  type Request,
  readProgress,
  type SessionOptions,
  type State,
  Status,
  sizeOfProgress,
  sizeOfRequest,
  sizeOfSessionOptions,
  sizeOfTokens,
  writeRequest,
  writeSessionOptions,
  writeTokens,
  zeroRequest,
} from "./abi.ts";
import { type Adapter, adapterBytes } from "./adapters.ts";
import { bytesOf, check, library, structBuffer, warningsOf, weightNotesOf } from "./library.ts";
import { type NetworkFiles, networkBytes } from "./weight-names.ts";

const pollMs = 5;

/** Scale of the VAE's residual stream where activations are f16. */
const f16ResidualScale = 1 / 64;

/** Time limit for a cancelled job that includes other processes; then the session is abandoned. */
const stopLimitMs = 15_000;

/** A model in the library's terms; `models/native-model.ts` makes it from a folder. */
export interface NativeModel {
  config: ModelConfig;
  weights: Record<"textEncoder" | "textEncoder2" | "unet" | "vae", NetworkFiles> & {
    taesd?: NetworkFiles | undefined;
  };
}

/** One prompt for both text encoders, in chunks of as many ids as they have positions. */
export interface TokenPair {
  ids: Int32Array;
  ids2: Int32Array;
  /** Index of the end-of-text token in the first chunk of `ids2`, whose state is pooled. */
  endIndex2: number;
  /** One per id; absent where all are 1. */
  weights?: Float32Array | undefined;
  weights2?: Float32Array | undefined;
  /** Layers that the encoders leave out, as diffusers counts. Default 0. */
  clipSkip?: number | undefined;
  /** How often a schedule of prompts has this one. Default 1. */
  repeatCount?: number | undefined;
}

export interface HandleOptions {
  model: NativeModel;
  /** Ranks of all processes. */
  rankCount: number;
  /** 0 = one per core. */
  threadCount: number;
  /** null = the CPU. */
  gpu: GpuOptions | null;
  branchCount: number;
  latentRows: number;
  latentWidth: number;
  splitBatch: boolean;
  /** Images of one batch. */
  imageCount: number;
  /** Tile size of the decoder in rows and columns of the latent; 0 = no tiles. */
  vaeTileLatent: number;
  /** Whether the first image starts from another, and whether with a mask. Default: neither. */
  hasImage?: boolean;
  hasMask?: boolean;
  /** Whether its latents are all that is asked for. Default: no. */
  skipsDecode?: boolean;
  /** Rows and columns of the latent in a second pass of that image. Default: none. */
  second?: { latentRows: number; latentWidth: number; hasImage: boolean } | null;
  /** What enlarges that image, and the pixels of it and of a tile. Default: none. */
  upscale?: (UpscalerStruct & { width: number; height: number; tileSize: number }) | null;
  /** Bytes on each device that must be free beside it, for another session. Default: none. */
  besideBytes?: number;
  /** Tile size that advice names where an image does not fit in memory; 0 or absent = none. */
  modelTileLatent?: number;
  /** Type of the CPU's matrix products; int8 of GPUs' linear layers, too. Default f32. */
  dtype?: CpuDtype;
  /** Adapters of the first image, for the memory check. Default none. */
  adapters?: readonly Adapter[];
  /** Networks of the first image and their uses, likewise. */
  networks?: NetworkStructs;
}

/** Networks beside the model and their uses, as structs of the library. */
export interface NetworkStructs {
  networks: Bytes;
  controls: Bytes;
  ipAdapters: Bytes;
  /** What they point to, which must live as long. */
  keepAlive: unknown[];
}

/** An upscaler as a struct, and what it points to. */
interface UpscalerStruct {
  bytes: Uint8Array;
  keepAlive: unknown[];
}

/** One CPU rank and a latent of `side` rows and columns, for what depends on neither. */
export function smallestOptions(model: NativeModel, side: number): HandleOptions {
  return {
    model,
    rankCount: 1,
    threadCount: 1,
    gpu: null,
    branchCount: 1,
    latentRows: side,
    latentWidth: side,
    splitBatch: false,
    imageCount: 1,
    vaeTileLatent: 0,
  };
}

/** Options of GPU ranks. */
export interface GpuOptions {
  /** Type of activations and weights. */
  dtype: "f16" | "bf16";
  /** Whether several ranks may share a GPU. */
  share: boolean;
  /** Whether the UNet's linear layers accumulate in f16: faster on consumer cards, less exact. */
  fp16Accumulate: boolean;
  /** Who computes attention: cuDNN where it can, or the own kernel; "cudnn" refuses without it. */
  attention?: Attention;
  /** Transport of data between GPUs. */
  transport: Transport;
  /** Whether steps run as CUDA graphs. */
  graphs: boolean;
  /** Whether GPUs generate random weights, and only headers of files are read; for benches. */
  randomWeights?: boolean;
  /** Path of a library that replaces NVIDIA's, for tests; null for NVIDIA's. */
  library: string | null;
  /** The GPU of the first rank, where all are local. Default 0. */
  gpuFirst?: number;
  /** Absent where all ranks are local. */
  localRanks?: LocalRanks;
}

/** The ranks of this process, where other processes run the rest; see src/distributed.ts. */
interface LocalRanks {
  first: number;
  count: number;
  /** The GPU of the first local rank, where the process sees more GPUs than it has ranks. */
  gpuFirst: number;
  /** Made by `makeNcclUniqueId` in one process and sent to the others; of one session alone. */
  ncclUniqueId: Uint8Array;
  /** That of the refiner's session; absent without one. */
  refinerNcclUniqueId?: Uint8Array | undefined;
}

export interface Hooks {
  /** Awaited at every poll; where it fails, the job is stopped, then the call rejects. */
  onProgress?: ((progress: Progress) => void | Promise<void>) | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Prompts as structs of the library; null = an embedding of zeros. The structs point to the arrays
 * of `prompts`, which must stay alive as long.
 */
export function tokenBytes(prompts: readonly (TokenPair | null)[]): Uint8Array {
  const bytes = new Uint8Array(prompts.length * sizeOfTokens);
  const view = new DataView(bytes.buffer);
  for (const [index, tokens] of prompts.entries()) {
    writeTokens(view, index * sizeOfTokens, {
      ids: bytesOf(tokens?.ids ?? null),
      ids2: bytesOf(tokens?.ids2 ?? null),
      weights: bytesOf(tokens?.weights ?? null),
      weights2: bytesOf(tokens?.weights2 ?? null),
      clipSkip: tokens?.clipSkip ?? 0,
      repeatCount: tokens?.repeatCount ?? 1,
      endIndex: tokens?.endIndex2 ?? 0,
      present: tokens !== null,
    });
  }
  return bytes;
}

/** A request's fields; only kind and size are required. */
type RequestFields = Pick<Request, "kind" | "latentRows" | "latentWidth"> & Partial<Request>;

export class NativeHandle {
  private constructor(
    private pointer: Pointer | null,
    private readonly isDistributed: boolean,
  ) {}

  /** Loads the model; rejects with the library's message where that fails. */
  static async open(options: HandleOptions, hooks: Hooks): Promise<NativeHandle> {
    stopIfAborted(hooks.signal);
    const handle = new NativeHandle(openPointer(options), options.gpu?.localRanks !== undefined);
    try {
      await handle.settled("loading", hooks);
      return handle;
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /**
   * Loads nothing, and rejects as `open` does where what would be loaded, with the first job, does
   * not fit into free memory; else the bytes that it needs there.
   */
  static async check(options: HandleOptions, hooks: Hooks): Promise<number> {
    stopIfAborted(hooks.signal);
    const handle = new NativeHandle(openPointer(options, { checksOnly: true }), false);
    try {
      const { neededBytes } = await handle.settled("loading", hooks);
      return Number(neededBytes);
    } finally {
      await handle.close();
    }
  }

  /** Runs one job to its end. `keepAlive` holds the arrays that the request points to. */
  async run(fields: RequestFields, keepAlive: unknown[], hooks: Hooks): Promise<Progress> {
    const { bytes, view } = structBuffer(sizeOfRequest);
    writeRequest(view, 0, { ...zeroRequest, batch: 1, branchCount: 1, ...fields });
    check(library().bxl_session_submit(this.alive(), ptr(bytes)));
    // `bxl_session_submit` has copied everything: the arrays may be freed from here on.
    keepAlive.length = 0;
    return await this.settled("running", hooks);
  }

  /** A result of the finished job. */
  read(output: keyof typeof Output): ArrayBuffer {
    const size = library().bxl_session_read(this.alive(), Output[output], null, 0n);
    const bytes = new Uint8Array(Number(size));
    if (size > 0n) library().bxl_session_read(this.alive(), Output[output], ptr(bytes), size);
    return bytes.buffer;
  }

  /** Warnings about everything that was ignored in the model's files. */
  warnings(): string[] {
    return warningsOf(this.alive());
  }

  /** How weights are kept that the model's files have in 8 bits. */
  weightNotes(): string[] {
    return weightNotesOf(this.alive());
  }

  progress(): Progress {
    return progressOf(this.alive());
  }

  /**
   * Cancels the running job and resolves when everything is freed, or when a driver that does not
   * answer has been abandoned. A second call does nothing.
   */
  async close(): Promise<void> {
    const pointer = this.pointer;
    if (pointer === null) return;
    library().bxl_session_close(pointer);
    this.pointer = null;
    while (progressOf(pointer).state !== "closed") await Bun.sleep(pollMs);
    library().bxl_session_free(pointer);
  }

  // --- internal ---

  private alive(): Pointer {
    if (this.pointer === null) throw new Error("the session is closed");
    return this.pointer;
  }

  /**
   * Resolves when the state is no longer `busy`, and rejects no earlier: an abort or a failing
   * `onProgress` cancels the job, which has ended when the promise settles.
   */
  private async settled(
    busy: keyof typeof State,
    { signal, onProgress }: Hooks,
  ): Promise<Progress> {
    let stopMs: number | null = null;
    let hookFailure: { error: unknown } | null = null;
    for (;;) {
      if (signal?.aborted || hookFailure !== null) {
        stopMs ??= performance.now();
        library().bxl_session_cancel(this.alive());
        // NCCL may wait for a lost process and cannot be interrupted: abandon the session.
        if (this.isDistributed && performance.now() - stopMs > stopLimitMs) {
          this.pointer = null;
          if (hookFailure !== null) throw hookFailure.error;
          stopIfAborted(signal);
        }
      }
      const progress = this.progress();
      if (hookFailure === null) {
        try {
          await onProgress?.(progress);
        } catch (error) {
          hookFailure = { error };
          continue;
        }
      }
      if (progress.state !== busy) {
        if (hookFailure !== null) throw hookFailure.error;
        if (progress.state === "failed" || progress.state === "lost") {
          check(Status[progress.status], this.alive(), progress.state === "lost");
        }
        // The job may end before it sees the abort: reject all the same.
        stopIfAborted(signal);
        return progress;
      }
      await Bun.sleep(pollMs);
    }
  }
}

// --- internal ---

function progressOf(session: Pointer): Progress {
  const { bytes, view } = structBuffer(sizeOfProgress);
  check(library().bxl_session_poll(session, ptr(bytes)));
  return readProgress(view, 0);
}

function openPointer(options: HandleOptions, { checksOnly = false } = {}): Pointer {
  const out = new BigUint64Array(1);
  const use = (struct: Pointer) => check(library().bxl_session_open(struct, ptr(out)));
  withOptions(options, use, { checksOnly });
  return Number(out[0]) as Pointer;
}

/** Calls `use` with the options as a struct of the library, which lives as long as the call. */
export function withOptions<T>(
  options: HandleOptions,
  use: (struct: Pointer) => T,
  { checksOnly = false } = {},
): T {
  const { model, gpu, dtype = "f32", adapters: given = [], networks: beside, ...sizes } = options;
  const activationDtype = gpu?.dtype ?? "f32";
  const { textEncoder, textEncoder2, unet, vae, taesd = noFiles } = model.weights;
  const networks = [textEncoder, textEncoder2, unet, vae, taesd].map(networkBytes);
  const [first, second, third, fourth, fifth] = networks;
  const libraryPath = new TextEncoder().encode(gpu?.library ? `${gpu.library}\0` : "");
  const uniqueId = gpu?.localRanks?.ncclUniqueId ?? new Uint8Array();
  const adapters = adapterBytes(given);
  const localRanks = gpu?.localRanks ?? allRanks(sizes.rankCount, gpu?.gpuFirst);
  const fields: SessionOptions = {
    ...sizes,
    device: gpu === null ? "cpu" : "cuda",
    activationDtype,
    shareGpu: Number(gpu?.share ?? false),
    cudaGraphs: Number(gpu?.graphs ?? false),
    fp16Accumulate: Number(gpu?.fp16Accumulate ?? false),
    attention: gpu?.attention ?? "auto",
    transport: gpu?.transport ?? "auto",
    localRankFirst: localRanks.first,
    localRankCount: localRanks.count,
    gpuFirst: localRanks.gpuFirst,
    ncclUniqueId: bytesOf(uniqueId),
    randomWeights: Number(gpu?.randomWeights ?? false),
    cudaLibrary: bytesOf(libraryPath),
    modelTileLatent: sizes.modelTileLatent ?? 0,
    hasImage: Number(sizes.hasImage ?? false),
    hasMask: Number(sizes.hasMask ?? false),
    skipsDecode: Number(sizes.skipsDecode ?? false),
    ...secondFields(sizes.second),
    splitBatch: Number(sizes.splitBatch),
    computeDtype: dtype,
    config: activationDtype === "f16" ? scaledVae(model.config) : model.config,
    textEncoderFiles: first!.files,
    textEncoder2Files: second!.files,
    unetFiles: third!.files,
    vaeFiles: fourth!.files,
    taesdFiles: fifth!.files,
    textEncoderNames: first!.names,
    textEncoder2Names: second!.names,
    unetNames: third!.names,
    vaeNames: fourth!.names,
    taesdNames: fifth!.names,
    adapters: bytesOf(adapters.bytes),
    networks: beside?.networks ?? bytesOf(null),
    controls: beside?.controls ?? bytesOf(null),
    ipAdapters: beside?.ipAdapters ?? bytesOf(null),
    ...upscaleFields(sizes.upscale),
    checksOnly: Number(checksOnly),
    besideBytes: BigInt(sizes.besideBytes ?? 0),
  };
  const keepAlive = [
    libraryPath,
    uniqueId,
    networks.map((network) => network.keepAlive),
    beside,
    sizes,
  ];
  const { bytes, view } = structBuffer(sizeOfSessionOptions);
  writeSessionOptions(view, 0, fields);
  const result = use(ptr(bytes));
  // The call copies what the struct points to: this keeps it alive until then.
  keepAlive.length = 0;
  adapters.keepAlive.length = 0;
  return result;
}

function allRanks(count: number, gpuFirst = 0) {
  return { first: 0, count, gpuFirst };
}

function secondFields(second: HandleOptions["second"]) {
  return {
    secondLatentRows: second?.latentRows ?? 0,
    secondLatentWidth: second?.latentWidth ?? 0,
    secondHasImage: Number(second?.hasImage ?? false),
  };
}

function upscaleFields(upscale: HandleOptions["upscale"]) {
  return {
    upscaler: bytesOf(upscale?.bytes ?? null),
    upscaleRows: upscale?.height ?? 0,
    upscaleWidth: upscale?.width ?? 0,
    upscaleTile: upscale?.tileSize ?? 0,
  };
}

const noFiles: NetworkFiles = { files: [], names: null };

/** SDXL's VAE reaches 1e5 in its residual stream, and f16 ends at 65504. */
export function scaledVae(config: ModelConfig): ModelConfig {
  return { ...config, vae: { ...config.vae, residualScale: f16ResidualScale } };
}
