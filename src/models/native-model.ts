/**
 * A model folder in the structs of the native library. Everything was checked before; names change
 * here and nothing else.
 */
import type * as abi from "../native/abi.ts";
import type { NativeModel } from "../native/handle.ts";
import type { ClipConfig, UnetConfig, VaeConfig } from "./config.ts";
import { timeIdCount } from "./kind.ts";
import type { Model, TaesdConfig } from "./model.ts";

export function nativeModelOf(model: Model): NativeModel {
  return {
    config: {
      text: {
        textEncoder: model.clip ? clipConfigOf(model.clip) : absentClip,
        textEncoder2: clipConfigOf(model.clip2),
        pooledFrom: "text_encoder_2",
      },
      unet: unetConfigOf(model.unet, timeIdCount(model)),
      vae: vaeConfigOf(model.vae),
      taesd: taesdConfigOf(model.taesd?.config),
    },
    weights: { ...model.weights, taesd: model.taesd?.weights },
  };
}

/** `timeIds`: how many numbers it reads beside the pooled prompt. */
export function unetConfigOf(unet: UnetConfig, timeIds: number): abi.UnetConfig {
  return {
    ...unet,
    timeIdCount: timeIds,
    levelCount: unet.blockOutChannels.length,
    flipSinToCos: Number(unet.flipSinToCos),
    frequencyShift: unet.freqShift,
    normEpsilon: unet.normEps,
  };
}

// --- internal ---

const absentClip: abi.ClipConfig = {
  isPresent: 0,
  vocabSize: 0,
  hiddenSize: 0,
  intermediateSize: 0,
  layerCount: 0,
  headCount: 0,
  positionCount: 0,
  hiddenAct: "quick_gelu",
  projectionSize: 0,
  layerNormEpsilon: 0,
  hiddenState: "penultimate",
  finalNorm: 0,
};

function clipConfigOf(clip: ClipConfig): abi.ClipConfig {
  return {
    ...clip,
    isPresent: 1,
    hiddenState: "penultimate",
    finalNorm: 0,
    layerNormEpsilon: clip.layerNormEps,
  };
}

function vaeConfigOf(vae: VaeConfig): abi.VaeConfig {
  return {
    ...vae,
    residualScale: 1,
    levelCount: vae.blockOutChannels.length,
    midAttention: Number(vae.midAttention),
    useQuantConv: Number(vae.useQuantConv),
    usePostQuantConv: Number(vae.usePostQuantConv),
  };
}

function taesdConfigOf(taesd: TaesdConfig | undefined): abi.TaesdConfig {
  const { channels = 0, blockCounts = [] } = taesd ?? {};
  const levelCount = blockCounts.length;
  return { isPresent: Number(taesd !== undefined), channels, levelCount, blockCounts };
}
