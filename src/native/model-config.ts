/**
 * A model folder's config in the library's own structs. Everything was checked by `models/` before;
 * names change here and nothing else.
 */
import type { ClipConfig, UnetConfig, VaeConfig } from "../models/config.ts";
import type { ModelFolder } from "../models/folder.ts";
import * as abi from "./abi.ts";

export function modelConfigOf(model: ModelFolder): abi.ModelConfig {
  return {
    clip: clipConfigOf(model.clip),
    clip2: clipConfigOf(model.clip2),
    unet: unetConfigOf(model.unet),
    vae: vaeConfigOf(model.vae),
  };
}

// --- internal ---

function clipConfigOf(clip: ClipConfig): abi.ClipConfig {
  return {
    ...clip,
    hiddenAct: clip.hiddenAct === "gelu" ? abi.HiddenAct.gelu : abi.HiddenAct.quickGelu,
    layerNormEpsilon: clip.layerNormEps,
  };
}

function unetConfigOf(unet: UnetConfig): abi.UnetConfig {
  return {
    ...unet,
    levelCount: unet.blockOutChannels.length,
    flipSinToCos: Number(unet.flipSinToCos),
    frequencyShift: unet.freqShift,
    normEpsilon: unet.normEps,
  };
}

function vaeConfigOf(vae: VaeConfig): abi.VaeConfig {
  return {
    ...vae,
    levelCount: vae.blockOutChannels.length,
    midAttention: Number(vae.midAttention),
    useQuantConv: Number(vae.useQuantConv),
    usePostQuantConv: Number(vae.usePostQuantConv),
  };
}
