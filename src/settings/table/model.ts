/**
 * Settings (rows of ../table.ts): the model, what is added to it, device and number types.
 */
import { embeddingCountMax, embeddingItem } from "../embedding.ts";
import { folderCountMax, folderItem } from "../folder.ts";
import { loraCountMax, loraItem, loraScaleMax } from "../lora.ts";
import { bf16Error, int8Error, tilingError } from "../measured-errors.ts";
import { devices, dtypes, predictionTypes } from "../names.ts";
import type { Setting } from "../setting.ts";

export const modelSettings = {
  model: {
    kind: "path",
    flag: "model",
    names: "file",
    models: "checkpoint",
    group: "Model and device",
    hint: "PATH",
    help:
      "A folder in diffusers' layout, a .safetensors checkpoint in the original layout, the name " +
      "of a model in the folders of models, which basedxl models lists, or a model of the " +
      "Hugging Face hub (org/name, org/name@revision, org/name:file), which is fetched if it is " +
      "not in the cache. Default: the variable BASEDXL_MODEL, else the bundled mini-sdxl.",
    scope: "pipeline",
    // Paths may differ; what the folders hold is compared (distributed/settings.ts).
    processes: "own",
    json: "model",
  },
  config: {
    kind: "path",
    flag: "config",
    names: "folder",
    group: "Model and device",
    hint: "FOLDER",
    help:
      "For a checkpoint in one file: a folder in diffusers' layout whose configs and tokenizers " +
      "hold, and whose weights stand in for networks that the file lacks. Default: what the " +
      "file's shapes say.",
    scope: "pipeline",
    processes: "own",
    json: "config",
  },
  vae: {
    kind: "path",
    flag: "vae",
    names: "file",
    models: "vae",
    group: "Model and device",
    hint: "PATH",
    help:
      "Another VAE than the model's own: a folder in diffusers' layout, a .safetensors file with " +
      "diffusers' or the original keys, a name from the folders of models, or an id of the " +
      "Hugging Face hub. Default: the model's own.",
    scope: "pipeline",
    // What it holds is compared with the model's other files.
    processes: "own",
    json: "vae",
  },
  taesd: {
    kind: "path",
    flag: "taesd",
    names: "file",
    models: "taesd",
    group: "Model and device",
    hint: "PATH",
    help:
      "A TAESD (AutoencoderTiny), with which --preview shows images at their full size: a folder " +
      "in diffusers' layout, a .safetensors file of the decoder, a name from the folders of " +
      "models (vae_approx), or an id of the Hugging Face hub, such as madebyollin/taesdxl. " +
      "Default: previews are approximations of the latent.",
    scope: "pipeline",
    processes: "own",
    unrecorded: true,
    json: null,
  },
  modelsDir: {
    kind: "list",
    of: folderItem,
    flag: "models-dir",
    names: "folder",
    max: folderCountMax,
    default: [],
    group: "Model and device",
    hint: "FOLDER",
    help:
      "Where models are looked up by name: the folder of ComfyUI, A1111 or Forge, any other, or " +
      "an extra_model_paths.yaml; several by giving the flag several times. Default: the " +
      'variable BASEDXL_MODELS_DIR, with ":" between them.',
    scope: "pipeline",
    processes: "own",
    unrecorded: true,
    json: null,
  },
  predictionType: {
    kind: "choice",
    flag: "prediction-type",
    names: ["auto", ...predictionTypes],
    default: "auto",
    group: "Model and device",
    hint: "NAME",
    help:
      "What the model was trained to predict: {names}. For a model that does not say it: the " +
      "wrong one gives noise or burnt colours. Default: auto, as the model's config says.",
    scope: "pipeline",
    // Part of the model, which is compared as a whole (distributed/settings.ts).
    processes: "own",
    json: "prediction_type",
  },
  rescaleBetasZeroSnr: {
    kind: "boolean",
    flag: "rescale-betas-zero-snr",
    aliases: ["zero-snr"],
    group: "Model and device",
    help:
      "The model was trained with noise levels that end in pure noise (zero terminal SNR), which " +
      "--timestep-spacing trailing begins with; --guidance-rescale 0.7 goes well with it. " +
      "--no-rescale-betas-zero-snr for not. Default: as the model's config says.",
    scope: "pipeline",
    // As the prediction type.
    processes: "own",
    json: "rescale_betas_zero_snr",
  },
  loras: {
    kind: "list",
    of: loraItem,
    flag: "lora",
    names: "file",
    models: "lora",
    max: loraCountMax,
    default: [],
    group: "Model and device",
    hint: "FILE[:X[:Y]]",
    help:
      "A LoRA or one of its kin (.safetensors, a name, or an id of the hub) at scale X " +
      "(default 1) in the UNet and Y (default X) in the text encoders, " +
      `-${loraScaleMax} to ${loraScaleMax}; several by giving the flag several times. Also as ` +
      "<lora:NAME:X> or <lora:NAME:Y:X> in the prompt. Default: none.",
    scope: "request",
    processes: "same",
    json: "loras",
  },
  embeddings: {
    kind: "list",
    of: embeddingItem,
    flag: "embedding",
    names: "file",
    models: "embedding",
    max: embeddingCountMax,
    default: [],
    group: "Model and device",
    hint: "FILE[=NAME]",
    help:
      "An embedding of textual inversion (.safetensors with clip_l and clip_g, or a name in the " +
      "folders of models) for prompts that have the word NAME, by default the file's; " +
      "several by giving the flag several times. Those in the folders of embeddings need no " +
      "flag: their name in a prompt is enough, also as embedding:NAME or <embed:NAME>. " +
      "Default: none.",
    scope: "request",
    processes: "same",
    json: "embeddings",
  },
  device: {
    kind: "choice",
    flag: "device",
    names: devices,
    default: "auto",
    group: "Model and device",
    hint: "NAME",
    help:
      "{names}. auto takes GPUs where there are any; cuda-emulated runs the GPU path on the CPU, " +
      "slowly, for tests. Default: auto.",
    scope: "pipeline",
    // Several processes are refused without GPUs, so that there is nothing to compare.
    processes: "own",
    json: "device",
  },
  dtype: {
    kind: "choice",
    flag: "dtype",
    names: dtypes,
    group: "Model and device",
    hint: "NAME",
    help:
      `Compute type: f32, bf16 or int8 on the CPU (${bf16Error}; ${int8Error}), f16, bf16 or ` +
      "int8 on GPUs. " +
      "Default: f32 on the CPU, f16 on GPUs.",
    scope: "pipeline",
    processes: "same",
    json: "dtype",
  },
  threadCount: {
    kind: "whole",
    flag: "threads",
    min: 0,
    max: 1024,
    default: 0,
    group: "Model and device",
    hint: "N",
    help:
      "CPU threads of all ranks, {range}. Default: 0, one per core that taskset and container " +
      "limits leave.",
    scope: "pipeline",
    processes: "own",
    unrecorded: true,
    json: null,
  },
  vaeTiling: {
    kind: "boolean",
    flag: "vae-tiling",
    default: false,
    group: "Model and device",
    help:
      "Decode images above the VAE's own size, and encode what they start from, in blended tiles " +
      "of that size, as diffusers does: less memory, and not quite the same image: " +
      `${tilingError}. For one rank; more share the work anyway, exactly.`,
    scope: "request",
    processes: "same",
    json: "vae_tiling",
  },
} as const satisfies Readonly<Record<string, Setting>>;
