/**
 * Settings (rows of ../table.ts): the image that generation starts from, its mask, and sizes.
 */
import { maskAreas, maskContents, resizeModes } from "../names.ts";
import type { Setting } from "../setting.ts";

export const inputSettings = {
  image: {
    kind: "path",
    flag: "image",
    names: "file",
    group: "Input image",
    hint: "FILE",
    help:
      "Start from this image instead of noise alone: PNG, JPEG, WebP, AVIF, TIFF or GIF, or - " +
      "for standard input. --width and --height are then its own, rounded to the model's unit. " +
      "Default: none.",
    scope: "request",
    // Of files the hashes are compared.
    processes: "same",
    unrecorded: true,
    json: null,
  },
  strength: {
    kind: "number",
    flag: "strength",
    min: 0,
    max: 1,
    group: "Input image",
    hint: "X",
    help:
      "How much of --image is made anew, above 0 to 1: of the steps so many are taken, as in " +
      "diffusers; with --compat those that the tool takes. Default: 0.75, with a mask 1.",
    modelDefault: true,
    scope: "request",
    processes: "same",
    json: "strength",
  },
  resize: {
    kind: "choice",
    flag: "resize",
    names: resizeModes,
    default: "cover",
    group: "Input image",
    hint: "NAME",
    help:
      "Where --width and --height are not of --image's shape: cover cuts what is over, fit fills " +
      "what is missing with the colours of the edge, stretch distorts. Default: cover.",
    scope: "request",
    processes: "same",
    json: "resize",
  },
  imageBackground: {
    kind: "text",
    flag: "image-background",
    default: "#ffffff",
    group: "Input image",
    hint: "#RRGGBB",
    help: "The colour behind transparent parts of --image. Default: #ffffff.",
    scope: "request",
    processes: "same",
    json: "image_background",
  },
  mask: {
    kind: "path",
    flag: "mask",
    names: "file",
    group: "Input image",
    hint: "FILE",
    help:
      "Make only a part of --image anew: where this image is white. The rest keeps its pixels. " +
      "Models for inpainting need it. Default: none.",
    scope: "request",
    processes: "same",
    unrecorded: true,
    json: null,
  },
  invertMask: {
    kind: "boolean",
    flag: "invert-mask",
    default: false,
    group: "Input image",
    help: "The part is where --mask is black. Default: where it is white.",
    scope: "request",
    processes: "same",
    json: "invert_mask",
  },
  maskBlur: {
    kind: "whole",
    flag: "mask-blur",
    min: 0,
    max: 256,
    default: 0,
    group: "Input image",
    hint: "PIXELS",
    help:
      "Standard deviation of a blur of the mask, {range}: new and old pixels are mixed at its " +
      "edge. Default: 0.",
    scope: "request",
    processes: "same",
    json: "mask_blur",
  },
  maskGrow: {
    kind: "whole",
    flag: "mask-grow",
    min: 0,
    max: 64,
    default: 0,
    group: "Input image",
    hint: "PIXELS",
    help:
      "Enlarge the mask by so many pixels, {range}, as ComfyUI's grow_mask_by; what " +
      "--mask-content grey hides stays. Default: 0.",
    scope: "request",
    processes: "same",
    json: "mask_grow",
  },
  maskArea: {
    kind: "choice",
    flag: "mask-area",
    names: maskAreas,
    default: "whole",
    group: "Input image",
    hint: "NAME",
    help:
      "whole: the whole image is computed; masked: the part around the mask alone, at --width " +
      "and --height, which is then put back into the image. Default: whole.",
    scope: "request",
    processes: "same",
    json: "mask_area",
  },
  maskContent: {
    kind: "choice",
    flag: "mask-content",
    names: maskContents,
    default: "original",
    group: "Input image",
    hint: "NAME",
    help:
      "What the masked part starts from: original is --image as it is, fill the colours around " +
      "the mask, blurred, latent-noise and latent-nothing noise or zeros in the latent, as A1111 " +
      "does, grey one grey, as ComfyUI's VAEEncodeForInpaint. Default: original.",
    scope: "request",
    processes: "same",
    json: "mask_content",
  },
  maskPadding: {
    kind: "whole",
    flag: "mask-padding",
    min: 0,
    max: 2048,
    default: 32,
    group: "Input image",
    hint: "PIXELS",
    help: "Pixels of --image around the mask for --mask-area masked, {range}. Default: 32.",
    scope: "request",
    processes: "same",
    json: "mask_padding",
  },
  extend: {
    kind: "text",
    flag: "extend",
    group: "Input image",
    hint: "SIDES",
    help:
      "Enlarge --image by new pixels, as in left=128,top=64 (also right, bottom): what is added " +
      "is masked, and sides grow to a multiple of the model's unit. Default: none.",
    scope: "request",
    processes: "same",
    json: "extend",
  },
} as const satisfies Readonly<Record<string, Setting>>;
