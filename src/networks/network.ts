/**
 * A network beside the model, opened: which kind it is, how it is configured, and where its weights
 * are. A kind is a file beside this one that gives one of these.
 */
import type { UnetConfig } from "../models/config.ts";
import type { ComponentWeights, Model } from "../models/model.ts";

/** ControlNetModel, or ControlNetUnionModel. */
export interface ControlNetConfig {
  /** Its first half. */
  unet: UnetConfig;
  conditioningChannels: number;
  /** Of the layers that bring the hint to the latent's size. */
  embeddingChannels: number[];
  /** Types of hints that a union model tells apart; 0 for other models. */
  controlTypeCount: number;
  typeLayerCount: number;
  /** Numbers beside the pooled prompt, as in the model. */
  timeIdCount: number;
  /** Whether it reads BGR. */
  isBgr: boolean;
}

/** CLIPVisionModelWithProjection. */
export interface ClipVisionConfig {
  hiddenSize: number;
  intermediateSize: number;
  layerCount: number;
  headCount: number;
  /** Pixels of a side of the image, and of a patch. */
  imageSize: number;
  patchSize: number;
  hiddenAct: "quick_gelu" | "gelu";
  projectionSize: number;
  layerNormEpsilon: number;
}

export interface IpAdapterConfig {
  projection: "plain" | "plus";
  tokenCount: number;
  /** Channels of what the image encoder gives: its embedding, or for plus its states. */
  embedSize: number;
  /** Of the resampler of plus, like the rest; 0 for plain. */
  hiddenSize: number;
  layerCount: number;
  headCount: number;
  innerSize: number;
  feedForwardSize: number;
}

interface Named {
  /** Absolute, of the folder or file. */
  path: string;
  /** Of the folder or file, without an ending. */
  name: string;
  weights: ComponentWeights;
}

export interface ControlNetNetwork extends Named {
  kind: "controlnet";
  config: ControlNetConfig;
}

/** full_adapter_xl */
export interface T2iAdapterConfig {
  /** 3, or 1 for grey. */
  inChannels: number;
  channels: number[];
  /** Residual layers of each block. */
  blockCount: number;
  downscaleFactor: number;
}

export interface T2iAdapterNetwork extends Named {
  kind: "t2i_adapter";
  config: T2iAdapterConfig;
}

export interface ClipVisionNetwork extends Named {
  kind: "clip_vision";
  config: ClipVisionConfig;
}

export interface IpAdapterNetwork extends Named {
  kind: "ip_adapter";
  config: IpAdapterConfig;
}

/** What steers the UNet by a hint image. */
export type ControlNetwork = ControlNetNetwork | T2iAdapterNetwork;

/** RRDBNet (ESRGAN, Real-ESRGAN), or SRVGGNetCompact. */
export interface UpscalerConfig {
  kind: "rrdbnet" | "compact";
  /** RRDBs; of compact ones the convolutions between the first and the last. */
  blockCount: number;
  features: number;
  /** Channels that each convolution of a dense block adds. */
  growth: number;
  /** Rows and columns of pixels that the first layer reads as one position. */
  unshuffle: number;
  /** Doublings on the way. */
  upsampleCount: number;
  /** Rows and columns of pixels that the last layer gives of a position. */
  shuffle: number;
}

export interface UpscalerNetwork extends Named {
  kind: "upscaler";
  config: UpscalerConfig;
  /** Pixels for each pixel, in each direction. */
  scale: number;
}

export type Network = ControlNetwork | ClipVisionNetwork | IpAdapterNetwork | UpscalerNetwork;

/** What a network beside a model must fit. */
export type Fitting = Pick<Model, "unet" | "vae" | "vaeFactor" | "clip2" | "name">;
