/**
 * What the rest of the program knows of the native library: the machine, and sessions that turn
 * tokens and a sampler's rows into a picture. One session draws one picture at a time.
 */
import { ptr } from "bun:ffi";
import type { ModelFolder } from "../models/folder.ts";
import type { StepRow } from "../schedule.ts";
import * as abi from "./abi.ts";
import { type Hooks, NativeHandle } from "./handle.ts";
import { bytesOf, check, library, structBuffer } from "./library.ts";

export interface DeviceInfo {
  cpuName: string;
  /** Of the CPU kernels that will run, such as "x86_64_v4". */
  instructionSet: string;
  coreCount: number;
  gpuCount: number;
  /** The first GPU's name, "" without one. */
  gpuName: string;
  /** Architectures of the CUDA kernels compiled in, "" for a build without nvcc. */
  cudaKernels: string;
  /** Bytes; 0 where the system does not tell. */
  memoryAvailable: number;
}

export interface OpenOptions {
  model: ModelFolder;
  rankCount: number;
  /** Threads of all ranks together, 0 = one per core. */
  threadCount: number;
  /** Pixels of the first picture: what cannot fit in memory is refused before loading. */
  width: number;
  height: number;
  guidance: boolean;
  onProgress?: (progress: Progress) => void;
  signal?: AbortSignal;
}

export interface TokenPair {
  ids: Int32Array;
  ids2: Int32Array;
  /** Where the second encoder pools. */
  endIndex2: number;
}

export interface PictureRequest {
  width: number;
  height: number;
  prompt: TokenPair;
  /** null = zeros. Only read with guidance. */
  negative: TokenPair | null;
  guidanceScale: number;
  rows: StepRow[];
  initNoiseSigma: number;
  seed: bigint;
  wantLatents: boolean;
}

export interface Progress {
  stage: "load" | "text" | "denoise" | "decode";
  /** Finished steps. */
  stepIndex: number;
  stepCount: number;
  /** Share of the weights that are in place, 0 to 1. */
  loadFraction: number;
}

export interface PictureHooks {
  onProgress?: (progress: Progress) => void;
  signal?: AbortSignal;
}

export interface PictureResult {
  /** RGB bytes, height × width × 3. */
  pixels: Uint8Array;
  width: number;
  height: number;
  /** NCHW in the sampler's scale, before division by the VAE's scaling factor. */
  latents: Float32Array | null;
  latentShape: [number, number, number, number];
  timings: { textMs: number; denoiseMs: number; decodeMs: number; stepMs: number[] };
}

/** What this machine can do. */
export function probeDevice(): DeviceInfo {
  const { bytes, view } = structBuffer(abi.sizeOfDeviceInfo);
  check(library().bxl_device_info(ptr(bytes)));
  const info = abi.readDeviceInfo(view, 0);
  return { ...info, memoryAvailable: Number(info.memoryAvailable) };
}

/** Loads a model. Rejects with `BasedXLError`; see `library.ts` for the codes. */
export async function openSession(options: OpenOptions): Promise<Session> {
  const { model, width, height, rankCount, threadCount, guidance, onProgress, signal } = options;
  const branchCount = guidance ? 2 : 1;
  const handle = await NativeHandle.open(
    {
      model,
      rankCount,
      threadCount,
      branchCount,
      latentRows: height / model.vaeFactor,
      latentWidth: width / model.vaeFactor,
    },
    {
      signal,
      onProgress: ({ copiedBytes, copyBytes }) => {
        const loadFraction = Number(copiedBytes) / Math.max(1, Number(copyBytes));
        onProgress?.({ stage: "load", stepIndex: 0, stepCount: 0, loadFraction });
      },
    },
  );
  return new NativeSession(handle, model, branchCount);
}

export interface Session {
  /** Ranks that work; the others that were asked for have nothing to do. */
  readonly rankCountUsed: number;
  /** In words, such as "2 ranks = 2 guidance branches". */
  readonly layout: string;
  /** Draws one picture. Rejects with "cancelled" soon after `signal`, "not-finite", "no-memory". */
  picture(request: PictureRequest, hooks?: PictureHooks): Promise<PictureResult>;
  /** Stops what runs and frees everything. */
  close(): void;
}

// --- internal ---

class NativeSession implements Session {
  readonly rankCountUsed: number;
  readonly layout: string;

  constructor(
    private readonly handle: NativeHandle,
    private readonly model: ModelFolder,
    branchCount: number,
  ) {
    this.rankCountUsed = handle.progress().workingRanks;
    const ranks = this.rankCountUsed === 1 ? "1 rank" : `${this.rankCountUsed} ranks`;
    const branches = this.rankCountUsed === 1 ? "both guidance branches" : "2 guidance branches";
    this.layout = branchCount === 1 ? `${ranks}, no guidance` : `${ranks} = ${branches}`;
  }

  async picture(request: PictureRequest, hooks: PictureHooks = {}): Promise<PictureResult> {
    const { width, height, prompt, negative, guidanceScale, rows } = request;
    const { vaeFactor, vae } = this.model;
    const rowBytes = rowsToBytes(rows);
    const guided = guidanceScale > 1;
    const done = await this.handle.run(
      {
        kind: abi.Kind.picture,
        latentRows: height / vaeFactor,
        latentWidth: width / vaeFactor,
        branchCount: guided ? 2 : 1,
        guidanceScale,
        initialScale: request.initNoiseSigma,
        wantsLatents: Number(request.wantLatents),
        seed: request.seed,
        rows: bytesOf(rowBytes),
        prompt: tokensOf(prompt),
        negative: tokensOf(guided ? negative : null),
        timeIds: [height, width, 0, 0, height, width],
      },
      [rowBytes, prompt, negative],
      pictureHooks(hooks, rows.length),
    );
    return {
      pixels: new Uint8Array(this.handle.read(abi.Output.rgb)),
      width,
      height,
      latents: request.wantLatents ? new Float32Array(this.handle.read(abi.Output.latents)) : null,
      latentShape: [1, vae.latentChannels, height / vaeFactor, width / vaeFactor],
      timings: {
        textMs: milliseconds(done.textNs),
        denoiseMs: milliseconds(done.denoiseNs),
        decodeMs: milliseconds(done.decodeNs),
        stepMs: Array.from(new BigUint64Array(this.handle.read(abi.Output.stepNs)), milliseconds),
      },
    };
  }

  close(): void {
    this.handle.close();
  }
}

const stageNames = ["load", "text", "denoise", "decode"] as const;

function pictureHooks({ onProgress, signal }: PictureHooks, stepCount: number): Hooks {
  return {
    signal,
    onProgress: ({ stage, stepIndex }) =>
      onProgress?.({
        stage: stageNames[stage] ?? "denoise",
        stepIndex,
        stepCount,
        loadFraction: 1,
      }),
  };
}

function tokensOf(tokens: TokenPair | null): abi.Tokens {
  return {
    ids: bytesOf(tokens?.ids ?? null),
    ids2: bytesOf(tokens?.ids2 ?? null),
    endIndex2: tokens?.endIndex2 ?? 0,
    present: Number(tokens !== null),
  };
}

function rowsToBytes(rows: StepRow[]): Uint8Array {
  const bytes = new Uint8Array(rows.length * abi.sizeOfStepRow);
  const view = new DataView(bytes.buffer);
  const nothing = { sample: 0, saved: 0, history: [], noise: 0 };
  rows.forEach((row, i) => {
    abi.writeStepRow(view, i * abi.sizeOfStepRow, {
      ...row,
      saved: row.saved ?? nothing,
      updatesSaved: Number(row.saved !== null),
      drawsNoise: Number(row.drawsNoise),
    });
  });
  return bytes;
}

function milliseconds(nanoseconds: bigint): number {
  return Number(nanoseconds) / 1e6;
}
