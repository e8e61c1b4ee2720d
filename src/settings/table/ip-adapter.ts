/**
 * Settings (rows of ../table.ts): images as prompts, by IP-Adapters. Each flag may be given several
 * times: the first values belong to the first adapter, and so on; one adapter sees all images.
 */
import { ipAdapterCountMax, ipImageCountMax } from "../../native/abi.ts";
import { fileItem, fractionItem, scaleItem } from "../list-items.ts";
import type { Setting } from "../setting.ts";

export const ipAdapterSettings = {
  ipAdapter: {
    kind: "list",
    of: fileItem,
    flag: "ip-adapter",
    names: "file",
    models: "ip-adapter",
    max: ipAdapterCountMax,
    default: [],
    group: "Image prompts",
    hint: "MODEL",
    help:
      "An IP-Adapter for SDXL (plain or plus; a .safetensors file, a name in the folders of " +
      "models, or h94/IP-Adapter:FILE of the hub): the image follows --ip-image as it follows " +
      "the prompt. Up to " +
      `${ipAdapterCountMax}, by giving the flag several times, each with an --ip-image. ` +
      "Default: none.",
    scope: "request",
    processes: "same",
    unrecorded: true,
    json: "ip_adapter",
  },
  ipImage: {
    kind: "list",
    of: fileItem,
    flag: "ip-image",
    names: "file",
    max: ipImageCountMax,
    default: [],
    group: "Image prompts",
    hint: "FILE",
    help:
      "What an --ip-adapter sees: its middle, at 224x224. One adapter may see up to " +
      `${ipImageCountMax} images together. Formats are those of --image. Default: none.`,
    scope: "request",
    processes: "same",
    unrecorded: true,
    json: null,
  },
  ipScale: {
    kind: "list",
    of: scaleItem,
    flag: "ip-scale",
    max: ipImageCountMax,
    default: [],
    group: "Image prompts",
    hint: "X",
    help:
      "How much an --ip-adapter counts beside the prompt, 0 to 10; with one adapter and several " +
      "images once for all or once for each image. Default: 1.",
    scope: "request",
    processes: "same",
    unrecorded: true,
    json: "ip_scale",
  },
  ipStart: {
    kind: "list",
    of: fractionItem,
    flag: "ip-start",
    max: ipAdapterCountMax,
    default: [],
    group: "Image prompts",
    hint: "X",
    help: "The fraction of the steps after which an --ip-adapter begins, 0 to 1. Default: 0.",
    scope: "request",
    processes: "same",
    unrecorded: true,
    json: "ip_start",
  },
  ipEnd: {
    kind: "list",
    of: fractionItem,
    flag: "ip-end",
    max: ipAdapterCountMax,
    default: [],
    group: "Image prompts",
    hint: "X",
    help: "The fraction of the steps after which an --ip-adapter ends, 0 to 1. Default: 1.",
    scope: "request",
    processes: "same",
    unrecorded: true,
    json: "ip_end",
  },
  ipEncoder: {
    kind: "list",
    of: fileItem,
    flag: "ip-encoder",
    names: "folder",
    models: "clip-vision",
    max: ipAdapterCountMax,
    default: [],
    group: "Image prompts",
    hint: "MODEL",
    help:
      "The image encoder of an --ip-adapter, CLIP ViT-H/14 or ViT-bigG/14: a folder of " +
      "transformers, a .safetensors file, or a name in the folders of models. Default: the one " +
      "beside the adapter that fits, also on the hub, in " +
      "image_encoder, models/image_encoder, sdxl_models/image_encoder or ComfyUI's clip_vision.",
    scope: "request",
    processes: "same",
    unrecorded: true,
    json: null,
  },
} as const satisfies Readonly<Record<string, Setting>>;
