/**
 * A model that is ready to be loaded, from a diffusers folder or a single file: its configuration,
 * tokenizers, and where each network's weights are.
 */
import type { Tokenizer } from "../prompt/tokenizer.ts";
import type { ClipConfig, SchedulerConfig, UnetConfig, VaeConfig } from "./config.ts";
import type { ModelDefaults } from "./defaults.ts";
import type { ModelKind } from "./kind.ts";

/** The networks of a model, by diffusers' names of their folders. */
export type Component = "textEncoder" | "textEncoder2" | "unet" | "vae";

export interface Model {
  /** Absolute. */
  path: string;
  name: string;
  kind: ModelKind;
  /** The first text encoder; null where the model has only the second, as refiners do. */
  clip: ClipConfig | null;
  clip2: ClipConfig;
  unet: UnetConfig;
  vae: VaeConfig;
  scheduler: SchedulerConfig;
  /** True: without a negative prompt, its embeddings are zeros instead of those of "". */
  forceZerosForEmptyPrompt: boolean;
  /** Null where `clip` is. */
  tokenizer: Tokenizer | null;
  tokenizer2: Tokenizer;
  /** A text encoder that the model has not has no files. */
  weights: Record<Component, ComponentWeights>;
  /** For previews; absent where they are made of the latent. */
  taesd?: Taesd | undefined;
  /** Sentences about tensors that no network has; the library reports what a network ignores. */
  warnings: readonly string[];
  /** From an optional basedxl.json in the folder. */
  defaults: ModelDefaults;
  /** Pixels per latent, 2^(VAE levels - 1). */
  vaeFactor: number;
  /** Widths and heights are multiples of this: vaeFactor · 2^(UNet levels - 1). */
  sizeMultiple: number;
  /** The size the model was trained for, in pixels. */
  nativeSize: { width: number; height: number };
}

/** AutoencoderTiny's decoder. */
export interface Taesd {
  /** Absolute, of the folder or file. */
  path: string;
  config: TaesdConfig;
  weights: ComponentWeights;
}

export interface TaesdConfig {
  /** Of all layers but the ends. */
  channels: number;
  /** Blocks of each level, the deepest first. */
  blockCounts: number[];
}

export interface ComponentWeights {
  /** Absolute paths of safetensors files: one, or all shards. */
  files: string[];
  /** Where the files have each weight; null where they use diffusers' keys. */
  names: WeightNames | null;
}

/** From diffusers' key of a weight to the tensor that holds it. */
export type WeightNames = ReadonlyMap<string, WeightSource>;

export interface WeightSource {
  /** Key in the file. */
  name: string;
  /** The weight is this part of the tensor's first dimension, such as a third of `in_proj`. */
  part?: readonly [index: number, count: number];
  /** The file has the matrix as (in, out). */
  transposed?: boolean;
}
