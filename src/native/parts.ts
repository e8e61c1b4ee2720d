/**
 * The parts of a image's making on their own: text encoders, one UNet call, the VAE both ways,
 * and the noise. For comparisons with a reference, for benchmarks, and for images made from
 * images. All arrays are f32 and channels first (NCHW), as PyTorch has them.
 */
import { ptr } from "bun:ffi";
import type { ModelFolder } from "../models/folder.ts";
import type { CpuDtype } from "../settings/names.ts";
import { type GpuOptions, NativeHandle } from "./handle.ts";
import { bytesOf, library } from "./library.ts";
import type { TokenPair } from "./session.ts";

export interface NoisePredictionInput {
  /** (batch, channels, rows, width) */
  sample: Float32Array;
  batch: number;
  latentRows: number;
  latentWidth: number;
  timestep: number;
  /** (batch, tokens, cross-attention width) */
  promptEmbeds: Float32Array;
  /** (batch, projection) */
  pooled: Float32Array;
  /** (batch, 6): original height and width, crop top and left, target height and width. */
  timeIds: Float32Array;
}

/** Absent values are one thread per core, and the CPU. */
export interface PartsOptions {
  threadCount?: number;
  dtype?: CpuDtype;
  gpu?: GpuOptions | null;
}

export class ModelParts {
  private constructor(
    private readonly handle: NativeHandle,
    private readonly model: ModelFolder,
  ) {}

  static async open(
    model: ModelFolder,
    { threadCount = 0, dtype = "f32", gpu = null }: PartsOptions = {},
  ): Promise<ModelParts> {
    const unit = model.sizeMultiple / model.vaeFactor;
    const handle = await NativeHandle.open(
      {
        model,
        threadCount,
        gpu,
        rankCount: 1,
        branchCount: 1,
        latentRows: unit,
        latentWidth: unit,
        splitBatch: false,
        imageCount: 1,
        vaeTileLatent: 0,
        dtype,
      },
      {},
    );
    return new ModelParts(handle, model);
  }

  /** One prompt: hidden states (1, tokens, width), pooled and projected output (1, projection). */
  async promptEmbeds(
    tokens: TokenPair,
  ): Promise<{ promptEmbeds: Float32Array; pooled: Float32Array }> {
    const unit = this.model.sizeMultiple / this.model.vaeFactor;
    const prompt = {
      ids: bytesOf(tokens.ids),
      ids2: bytesOf(tokens.ids2),
      endIndex2: tokens.endIndex2,
      present: 1,
    };
    const sizes = { latentRows: unit, latentWidth: unit };
    await this.handle.run({ kind: "prompt_embeds", ...sizes, prompt }, [tokens], {});
    return {
      promptEmbeds: new Float32Array(this.handle.read("prompt_embeds")),
      pooled: new Float32Array(this.handle.read("pooled")),
    };
  }

  /** One call of the UNet, as diffusers calls it; the time is the UNet's alone. */
  async noisePrediction(
    input: NoisePredictionInput,
  ): Promise<{ output: Float32Array; milliseconds: number }> {
    const { batch, latentRows, latentWidth, timestep } = input;
    const done = await this.handle.run(
      {
        kind: "noise_prediction",
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
   * A latent, divided by the scaling factor, to the decoder's output, not clamped, and RGB; where
   * `vaeTileLatent` is not 0, in blended tiles of so many rows and columns of the latent.
   */
  async decode(
    latent: Float32Array,
    latentRows: number,
    latentWidth: number,
    vaeTileLatent = 0,
  ): Promise<{ image: Float32Array; rgb: Uint8Array; milliseconds: number }> {
    const sample = bytesOf(latent);
    const job = { kind: "decode" as const, latentRows, latentWidth, vaeTileLatent, sample };
    const done = await this.handle.run(job, [latent], {});
    return {
      image: new Float32Array(this.handle.read("decoded")),
      rgb: new Uint8Array(this.handle.read("rgb")),
      milliseconds: Number(done.decodeNs) / 1e6,
    };
  }

  /** A image of -1 to 1 to the mean of its latent, times the scaling factor. */
  async encode(
    image: Float32Array,
    latentRows: number,
    latentWidth: number,
  ): Promise<Float32Array> {
    const sample = bytesOf(image);
    const job = { kind: "encode" as const, latentRows, latentWidth, sample };
    await this.handle.run(job, [image], {});
    return new Float32Array(this.handle.read("latents"));
  }

  close(): void {
    this.handle.close();
  }
}

/** `drawCount` times `torch.randn(length)` from `torch.Generator("cpu")` of `seed`, end to end. */
export function randomNormal(seed: bigint, drawCount: number, length: number): Float32Array {
  const out = new Float32Array(drawCount * length);
  if (out.length > 0) library().bxl_random_normal(seed, drawCount, ptr(out), BigInt(length));
  return out;
}
