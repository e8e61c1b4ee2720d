/**
 * A model folder's config in the library's own structs. Everything was checked by `models/` before;
 * names change here and nothing else.
 */
import type { ClipConfig, UnetConfig, VaeConfig } from "../models/config.ts";
import type { ModelFolder } from "../models/folder.ts";
import type { Dtype } from "../settings/names.ts";
import type * as abi from "./abi.ts";

/** What f16 keeps of the VAE's activations: SDXL's reach 1e5, and f16 ends at 65504. */
const vaeStreamScale = 1 / 64;

/** `activation` is the type that layers will hand to each other. */
export function modelConfigOf(model: ModelFolder, activation: Dtype): abi.ModelConfig {
  return {
    clip: clipConfigOf(model.clip),
    clip2: clipConfigOf(model.clip2),
    unet: unetConfigOf(model.unet),
    vae: vaeConfigOf(model.vae, activation === "f16" ? vaeStreamScale : 1),
  };
}

// --- internal ---

function clipConfigOf(clip: ClipConfig): abi.ClipConfig {
  return {
    ...clip,
    hiddenAct: clip.hiddenAct,
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

function vaeConfigOf(vae: VaeConfig, residualScale: number): abi.VaeConfig {
  return {
    ...vae,
    residualScale,
    levelCount: vae.blockOutChannels.length,
    midAttention: Number(vae.midAttention),
    useQuantConv: Number(vae.useQuantConv),
    usePostQuantConv: Number(vae.usePostQuantConv),
  };
}
