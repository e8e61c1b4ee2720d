/**
 * Settings (rows of ../table.ts): networks that steer the image by a hint image. Each flag may be
 * given several times: the first values belong to the first network, and so on.
 */
import { controlCountMax, controlPreprocessItem, controlTypeItem } from "../control.ts";
import { fileItem, fractionItem, scaleItem } from "../list-items.ts";
import type { Setting } from "../setting.ts";

export const controlSettings = {
  controlnet: {
    kind: "list",
    of: fileItem,
    flag: "controlnet",
    names: "file",
    models: "controlnet",
    max: controlCountMax,
    default: [],
    group: "Control",
    hint: "MODEL",
    help:
      "A ControlNet (union ones too) or T2I-Adapter that follows --control-image: a folder in " +
      "diffusers' layout, a .safetensors file with diffusers' or original keys, a name in the " +
      `folders of models, or an id of the hub. Up to ${controlCountMax} by giving the flag ` +
      "several times, with the other --control flags once for all or for each. Default: none.",
    scope: "request",
    processes: "same",
    json: "controlnet",
  },
  controlImage: {
    kind: "list",
    of: fileItem,
    flag: "control-image",
    names: "file",
    max: controlCountMax,
    default: [],
    group: "Control",
    hint: "FILE",
    help:
      "The hint of a --controlnet: an image such as outlines or a depth map, which is cut and " +
      "scaled to the size of what is generated. Formats are those of --image. Several for one " +
      "union ControlNet are read at once. Default: none.",
    scope: "request",
    processes: "same",
    unrecorded: true,
    json: null,
  },
  controlScale: {
    kind: "list",
    of: scaleItem,
    flag: "control-scale",
    max: controlCountMax,
    default: [],
    group: "Control",
    hint: "X",
    help: "How much a --controlnet steers, 0 to 10. Default: 1.",
    scope: "request",
    processes: "same",
    json: "control_scale",
  },
  controlStart: {
    kind: "list",
    of: fractionItem,
    flag: "control-start",
    max: controlCountMax,
    default: [],
    group: "Control",
    hint: "X",
    help: "The fraction of the steps after which a --controlnet begins, 0 to 1. Default: 0.",
    scope: "request",
    processes: "same",
    json: "control_start",
  },
  controlEnd: {
    kind: "list",
    of: fractionItem,
    flag: "control-end",
    max: controlCountMax,
    default: [],
    group: "Control",
    hint: "X",
    help: "The fraction of the steps after which a --controlnet ends, 0 to 1. Default: 1.",
    scope: "request",
    processes: "same",
    json: "control_end",
  },
  controlType: {
    kind: "list",
    of: controlTypeItem,
    flag: "control-type",
    max: controlCountMax,
    default: [],
    group: "Control",
    hint: "NAME",
    help:
      "What the hint of a union --controlnet is: openpose, depth, sketch (hed, pidi, scribble, " +
      "ted), line (canny, lineart, mlsd), normal, segment, tile, repaint, or its " +
      "number. Default: none.",
    scope: "request",
    processes: "same",
    json: "control_type",
  },
  controlPreprocess: {
    kind: "list",
    of: controlPreprocessItem,
    flag: "control-preprocess",
    max: controlCountMax,
    default: [],
    group: "Control",
    hint: "NAME",
    help:
      "Makes the hint from --control-image: none (it is one), canny (its edges), grey, blur, " +
      "tile (smaller and back). Default: none.",
    scope: "request",
    processes: "same",
    json: "control_preprocess",
  },
} as const satisfies Readonly<Record<string, Setting>>;
