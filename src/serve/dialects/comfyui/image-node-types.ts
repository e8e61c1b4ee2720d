/**
 * The nodes of images to start from, of masks, and of latents that are made of them.
 * Source: ComfyUI, nodes.py, comfy_extras/nodes_mask.py and nodes_post_processing.py.
 */
import { settings } from "../../../settings/table.ts";
import {
  choice,
  conditioning,
  controlNet,
  flag,
  type InputType,
  image,
  latent,
  listed,
  mask,
  type NodeType,
  number,
  sideMax,
  upscaleModel,
  vae,
  whole,
} from "./input-types.ts";

const upload: InputType = {
  type: "COMBO",
  choices: ({ inputImages }) => inputImages,
  // Images of jobs and those in folders are not listed: they are looked for when they are read.
  accepts: () => true,
  options: { image_upload: true },
};
const side = whole(512, 0, sideMax, 1);
const added = whole(0, 0, sideMax, 8);
const latentSide = whole(512, 0, sideMax, 8);
const latentMethod = choice("nearest-exact", "bilinear", "bicubic");
/** As comfy/cldm/control_types.py names them. */
const unionTypes = [
  ...["openpose", "depth", "hed/pidi/scribble/ted", "canny/lineart/anime_lineart/mlsd"],
  ...["normal", "segment", "tile", "repaint"],
];
const upscaleMethod = choice("nearest-exact", "bilinear", "area", "bicubic", "lanczos");

export const imageNodeTypes: Readonly<Record<string, NodeType>> = {
  LoadImage: {
    ...{ title: "Load Image", category: "image" },
    inputs: { image: upload },
    outputs: ["IMAGE", "MASK"],
  },
  LoadImageMask: {
    ...{ title: "Load Image (as Mask)", category: "mask" },
    inputs: { image: upload, channel: choice("alpha", "red", "green", "blue") },
    outputs: ["MASK"],
  },
  ImageScale: {
    ...{ title: "Upscale Image", category: "image/upscaling" },
    inputs: {
      ...{ image, upscale_method: upscaleMethod, width: side, height: side },
      crop: choice("disabled", "center"),
    },
    outputs: ["IMAGE"],
  },
  ImageScaleBy: {
    ...{ title: "Upscale Image By", category: "image/upscaling" },
    inputs: { image, upscale_method: upscaleMethod, scale_by: number(1, 0.01, 8) },
    outputs: ["IMAGE"],
  },
  ImageScaleToTotalPixels: {
    ...{ title: "ImageScaleToTotalPixels", category: "image/upscaling" },
    inputs: { image, upscale_method: upscaleMethod, megapixels: number(1, 0.01, 16) },
    outputs: ["IMAGE"],
  },
  UpscaleModelLoader: {
    ...{ title: "Load Upscale Model", category: "loaders" },
    inputs: { model_name: listed("upscalers") },
    outputs: ["UPSCALE_MODEL"],
  },
  ImageUpscaleWithModel: {
    ...{ title: "Upscale Image (using Model)", category: "image/upscaling" },
    inputs: { upscale_model: upscaleModel, image },
    outputs: ["IMAGE"],
  },
  ImagePadForOutpaint: {
    ...{ title: "Pad Image for Outpainting", category: "image" },
    inputs: {
      ...{ image, left: added, top: added, right: added, bottom: added },
      feathering: whole(40, 0, sideMax, 1),
    },
    outputs: ["IMAGE", "MASK"],
  },
  ImageInvert: {
    ...{ title: "Invert Image", category: "image" },
    inputs: { image },
    outputs: ["IMAGE"],
  },
  InvertMask: {
    ...{ title: "InvertMask", category: "mask" },
    inputs: { mask },
    outputs: ["MASK"],
  },
  MaskToImage: {
    ...{ title: "Convert Mask to Image", category: "mask" },
    inputs: { mask },
    outputs: ["IMAGE"],
  },
  ImageToMask: {
    ...{ title: "Convert Image to Mask", category: "mask" },
    // Images have no alpha here.
    inputs: { image, channel: choice("red", "green", "blue") },
    outputs: ["MASK"],
  },
  VAEEncode: {
    ...{ title: "VAE Encode", category: "latent" },
    inputs: { pixels: image, vae },
    outputs: ["LATENT"],
  },
  VAEEncodeForInpaint: {
    ...{ title: "VAE Encode (for Inpainting)", category: "latent/inpaint" },
    inputs: { pixels: image, vae, mask, grow_mask_by: whole(6, 0, 64, 1) },
    outputs: ["LATENT"],
  },
  InpaintModelConditioning: {
    ...{ title: "InpaintModelConditioning", category: "conditioning/inpaint" },
    inputs: {
      ...{ positive: conditioning, negative: conditioning, vae, pixels: image, mask },
      noise_mask: flag(true),
    },
    outputs: ["CONDITIONING", "CONDITIONING", "LATENT"],
  },
  SetLatentNoiseMask: {
    ...{ title: "Set Latent Noise Mask", category: "latent/inpaint" },
    inputs: { samples: latent, mask },
    outputs: ["LATENT"],
  },
  ControlNetLoader: {
    ...{ title: "Load ControlNet Model", category: "loaders" },
    inputs: { control_net_name: listed("controlnets") },
    outputs: ["CONTROL_NET"],
  },
  SetUnionControlNetType: {
    ...{ title: "SetUnionControlNetType", category: "conditioning/controlnet" },
    inputs: { control_net: controlNet, type: choice(...unionTypes) },
    outputs: ["CONTROL_NET"],
  },
  ControlNetApply: {
    ...{ title: "Apply ControlNet (OLD)", category: "conditioning/controlnet" },
    inputs: { conditioning, control_net: controlNet, image, strength: number(1, 0, 10) },
    outputs: ["CONDITIONING"],
  },
  ControlNetApplyAdvanced: {
    ...{ title: "Apply ControlNet", category: "conditioning/controlnet" },
    inputs: {
      ...{ positive: conditioning, negative: conditioning, control_net: controlNet, image },
      ...{ strength: number(1, 0, 10), start_percent: number(0, 0, 1, 0.001) },
      end_percent: number(1, 0, 1, 0.001),
    },
    outputs: ["CONDITIONING", "CONDITIONING"],
  },
  LatentUpscale: {
    ...{ title: "Upscale Latent", category: "latent" },
    inputs: {
      ...{ samples: latent, upscale_method: latentMethod, width: latentSide, height: latentSide },
      crop: choice("disabled"),
    },
    outputs: ["LATENT"],
  },
  LatentUpscaleBy: {
    ...{ title: "Upscale Latent By", category: "latent" },
    inputs: { samples: latent, upscale_method: latentMethod, scale_by: number(1.5, 0.01, 8) },
    outputs: ["LATENT"],
  },
  RepeatLatentBatch: {
    ...{ title: "Repeat Latent Batch", category: "latent/batch" },
    inputs: { samples: latent, amount: whole(1, 1, settings.imageCount.max) },
    outputs: ["LATENT"],
  },
};
