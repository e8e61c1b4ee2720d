/**
 * What a session is told when it opens: the model, the devices, and the shapes of the first
 * request, so that what cannot fit into memory is refused before weights load. Plans are made of
 * the same.
 */
import { adaptersOf } from "../adapters/plan.ts";
import type { Size } from "../image/encoder.ts";
import type { Model } from "../models/model.ts";
import { nativeModelOf } from "../models/native-model.ts";
import type { Adapter } from "../native/adapters.ts";
import type { GpuOptions, HandleOptions } from "../native/handle.ts";
import { type NetworkUses, networkStructs, noUses, upscalerStruct } from "../networks/native.ts";
import type { CpuDtype } from "../settings/names.ts";
import { controlShapes } from "./controls.ts";
import { enlargements, type FirstUpscale, tileSizeDefault } from "./enlargements.ts";
import { finalSize } from "./hires.ts";
import { ipAdapterShapes } from "./ip-adapters.ts";
import type { PreparedPipeline } from "./prepare.ts";
import type { Progress } from "./progress.ts";
import type { PlannedRequest } from "./request.ts";
import { tileLatent } from "./vae-tiling.ts";

export interface OpenOptions {
  model: Model;
  rankCount: number;
  /** Threads of all ranks together, 0 = one per core. */
  threadCount: number;
  /** null or absent = the CPU. */
  gpu?: GpuOptions | null;
  /** Pixels of the first image, for the memory check before weights load. */
  width: number;
  height: number;
  guidance: boolean;
  /** Prompts that an image combines. Default: 1. */
  promptCount?: number;
  /** Whether guidance branches have separate ranks, with guidance and an even rank count. */
  splitBatch: boolean;
  /** Images of one batch. */
  imageCount: number;
  /** As in the requests, for the memory check: an image may fit only in tiles. */
  vaeTiling?: boolean;
  /** Whether the first image starts from another, and whether with a mask. */
  hasImage?: boolean;
  hasMask?: boolean;
  /** Whether the first pass decodes nothing. Default: it does. */
  skipsDecode?: boolean;
  /** Pixels of a second pass, for the memory check; from an image or a latent. Default: none. */
  second?: (Size & { hasImage: boolean }) | null;
  /** What enlarges images, likewise: of this size in pixels. Default: none. */
  upscale?: FirstUpscale | null | undefined;
  /** As in the requests, for the memory check. */
  adapters?: readonly Adapter[] | undefined;
  /** Of the first image, without pixels. */
  uses?: NetworkUses | undefined;
  /** Type of the CPU's matrix products. Default f32; bf16 needs `DeviceInfo.hasBf16`. */
  dtype?: CpuDtype | undefined;
  onProgress?: ((progress: Progress) => void | Promise<void>) | undefined;
  /** Called with a warning for everything that was ignored in the model's files. */
  onWarning?: ((warning: string) => void) | undefined;
  onWeightNote?: ((note: string) => void) | undefined;
  signal?: AbortSignal | undefined;
}

type PreparedParts = Pick<
  PreparedPipeline,
  "model" | "rankCount" | "threadCount" | "devices" | "plan"
> & { upscale?: FirstUpscale | null };

/** What is known of a model's first job before its weights load. */
export function openOptionsOf({
  model,
  rankCount,
  threadCount,
  devices: { gpu, dtype },
  plan,
  upscale,
}: PreparedParts): OpenOptions {
  const { settings, input, controls, ipAdapters, batches } = plan;
  const { width, height, splitBatch, vaeTiling } = settings;
  const [first] = batches;
  return {
    ...{ model, rankCount, threadCount, gpu, dtype, width, height, splitBatch, vaeTiling },
    hasImage: input !== null,
    hasMask: input !== null && input.mask !== null,
    skipsDecode: !plan.wantImages,
    upscale: upscale ?? upscaleOf(plan),
    second: plan.hires?.denoises
      ? { ...finalSize(plan), hasImage: plan.hires.plan.input !== null }
      : null,
    guidance: first?.guidance ?? false,
    promptCount: first?.images[0]?.tokens.weights.length ?? 1,
    adapters: adaptersOf(first?.images[0]?.loras ?? []),
    uses: { controls: controlShapes(controls), ipAdapters: ipAdapterShapes(ipAdapters) },
    imageCount: Math.max(...batches.map(({ images }) => images.length)),
  };
}

/** The same in the library's terms. */
export function handleOptionsOf(options: OpenOptions): HandleOptions {
  const { model, rankCount, threadCount, splitBatch, imageCount, vaeTiling, upscale } = options;
  const branchCount = options.guidance ? 1 + (options.promptCount ?? 1) : 1;
  return {
    model: nativeModelOf(model),
    rankCount,
    threadCount,
    gpu: options.gpu ?? null,
    branchCount,
    ...latentOf(options, model),
    splitBatch,
    imageCount,
    vaeTileLatent: vaeTiling ? tileLatent(model) : 0,
    modelTileLatent: tileLatent(model),
    hasImage: options.hasImage ?? false,
    hasMask: options.hasMask ?? false,
    skipsDecode: options.skipsDecode ?? false,
    second: options.second ? { ...options.second, ...latentOf(options.second, model) } : null,
    upscale: upscale ? { ...upscale, ...upscalerStruct(upscale.network) } : null,
    dtype: options.dtype ?? "f32",
    adapters: options.adapters ?? [],
    networks: networkStructs(options.uses ?? noUses),
  };
}

/** What the library enlarges on the way to the second pass: the last and largest. */
export function upscaleOf({ hires }: PlannedRequest): FirstUpscale | null {
  if (hires?.upscaler.kind !== "model") return null;
  const { network } = hires.upscaler;
  const last = enlargements(hires.firstSize, hires.plan.settings, network).at(-1)!;
  return { ...last, network, tileSize: tileSizeDefault };
}

// --- internal ---

/** Of an image of this size in pixels. */
function latentOf({ width, height }: Size, { vaeFactor }: Model) {
  return { latentRows: height / vaeFactor, latentWidth: width / vaeFactor };
}
