/**
 * A network beside the model, opened: which kind it is, how it is configured, and where its weights
 * are. A kind is a file beside this one that gives one of these.
 */
import type { UnetConfig } from "../models/config.ts";
import type { ComponentWeights } from "../models/model.ts";

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

export type Network = ControlNetNetwork;
