/**
 * Every setting of image generation, one row each. Flags, parsing, ranges and their sentences,
 * `--help`, shell completions, the output of `--json`, the comparison between processes and the
 * schema of requests all follow from these rows: adding a setting is one row here, one field of
 * `Request` in zig/abi/types.zig, and its use.
 */
import { imageCountMax, rankCountMax, stepCountMax } from "../native/abi.ts";
import { embeddingCountMax, embeddingItem } from "./embedding.ts";
import { folderCountMax, folderItem } from "./folder.ts";
import { loraCountMax, loraItem, loraScaleMax } from "./lora.ts";
import { bf16Error, tilingError } from "./measured-errors.ts";
import {
  devices,
  dtypes,
  emphases,
  emptyNegatives,
  predictionTypes,
  promptSyntaxes,
  recipeNames,
  rngs,
  samplerNamed,
  schedulers,
  sigmaKinds,
  syncModeLines,
  syncModes,
  timestepSpacings,
  transports,
} from "./names.ts";
import type { Given, Resolved, Setting } from "./setting.ts";

export const settings = {
  prompt: {
    kind: "text",
    flag: "prompt",
    group: "Image",
    hint: "TEXT",
    help: "What the image shows. Default: the model's own prompt, if it has one.",
    modelDefault: true,
    scope: "request",
    processes: "same",
    json: "prompt",
  },
  negativePrompt: {
    kind: "text",
    flag: "negative-prompt",
    group: "Image",
    hint: "TEXT",
    help:
      'What the image should not show. "" is encoded as an empty text; without this flag the ' +
      "model's config decides (SDXL: zeros). Default: none.",
    emptyAllowed: true,
    needsGuidance: true,
    scope: "request",
    processes: "same",
    json: "negative_prompt",
  },
  prompt2: {
    kind: "text",
    flag: "prompt-2",
    group: "Image",
    hint: "TEXT",
    help: "What the second text encoder reads. Default: the prompt.",
    scope: "request",
    processes: "same",
    json: "prompt_2",
  },
  negativePrompt2: {
    kind: "text",
    flag: "negative-prompt-2",
    group: "Image",
    hint: "TEXT",
    help: "The same of the negative prompt. Default: the negative prompt.",
    needsGuidance: true,
    scope: "request",
    processes: "same",
    json: "negative_prompt_2",
  },
  promptSyntax: {
    kind: "choice",
    flag: "prompt-syntax",
    names: promptSyntaxes,
    default: "plain",
    group: "Image",
    hint: "NAME",
    help:
      "How prompts are read: plain as diffusers does; a1111 with (weights:1.2), [less], BREAK " +
      "and chunks of 75 tokens; comfyui with its (weights:1.2) and chunks. Default: plain.",
    scope: "request",
    processes: "same",
    json: "prompt_syntax",
  },
  emphasis: {
    kind: "choice",
    flag: "emphasis",
    names: emphases,
    default: "original",
    group: "Image",
    hint: "NAME",
    help:
      "How --prompt-syntax a1111 applies weights: original restores the mean of each chunk, " +
      "no_norm does not. Default: original, as A1111.",
    scope: "request",
    processes: "same",
    json: "emphasis",
  },
  longPrompts: {
    kind: "boolean",
    flag: "long-prompts",
    default: false,
    group: "Image",
    help:
      "Read plain prompts of more than 75 tokens in chunks of 75, as the other syntaxes always " +
      "do. Default: the rest is left out, with a warning.",
    scope: "request",
    processes: "same",
    json: "long_prompts",
  },
  clipSkip: {
    kind: "whole",
    flag: "clip-skip",
    min: 1,
    max: 12,
    default: 2,
    group: "Image",
    hint: "N",
    help:
      "The text encoders' layer to read, counted from the end, {range}: 2 is the one that SDXL " +
      "was trained with, and 1 is read as 2. diffusers' clip_skip K is N = K + 2, and with " +
      "--prompt-syntax plain holds for the prompt alone, as there; a1111 reads 2 whatever N is. " +
      "Default: 2.",
    scope: "request",
    processes: "same",
    json: "clip_skip",
  },
  emptyNegative: {
    kind: "choice",
    flag: "empty-negative",
    names: emptyNegatives,
    default: "auto",
    group: "Image",
    hint: "NAME",
    help:
      "What an empty or absent negative prompt is: zeros (as in A1111), encode (the empty text, " +
      'as in ComfyUI), or auto: "" is encoded, and an absent one is what the config of the model ' +
      "says, zeros for SDXL. Default: auto.",
    needsGuidance: true,
    scope: "request",
    processes: "same",
    json: "empty_negative",
  },
  promptFile: {
    kind: "path",
    flag: "prompt-file",
    names: "file",
    group: "Image",
    hint: "FILE",
    help:
      "A text with a prompt per line, in the place of one prompt; --num-images are of each. " +
      "Default: none.",
    scope: "command",
    processes: "own",
    json: null,
  },
  style: {
    kind: "text",
    flag: "style",
    group: "Image",
    hint: "NAME",
    help: "Styles of --styles for the prompts, with commas between. Default: none.",
    scope: "command",
    processes: "own",
    json: null,
  },
  stylesPath: {
    kind: "path",
    flag: "styles",
    names: "file",
    extension: ".csv",
    group: "Image",
    hint: "FILE",
    help: "A1111's styles.csv, with columns name, prompt and negative_prompt. Default: none.",
    scope: "command",
    processes: "own",
    json: null,
  },
  dynamicPrompts: {
    kind: "boolean",
    flag: "dynamic-prompts",
    default: false,
    group: "Image",
    help:
      "Choose in prompts by the seed: {red|blue}, {0.3::red|blue}, {2$$a|b|c}, and __name__ for " +
      "a line of name.txt in --wildcards. Default: prompts are read as they are.",
    scope: "command",
    processes: "own",
    json: null,
  },
  wildcards: {
    kind: "path",
    flag: "wildcards",
    names: "folder",
    group: "Image",
    hint: "FOLDER",
    help: "Where --dynamic-prompts finds the files of __name__. Default: none.",
    scope: "command",
    processes: "own",
    json: null,
  },
  guidanceScale: {
    kind: "number",
    flag: "guidance-scale",
    min: 0,
    max: 100,
    group: "Image",
    hint: "X",
    help:
      "How closely to follow the prompt, {range}; 1 and below is no guidance, in half the time. " +
      "Default: the model's own, else 5.",
    modelDefault: true,
    scope: "request",
    processes: "same",
    json: "guidance_scale",
  },
  guidanceRescale: {
    kind: "number",
    flag: "guidance-rescale",
    min: 0,
    max: 1,
    default: 0,
    group: "Image",
    hint: "X",
    help:
      "Scale the guided noise prediction back towards the deviation of the prompt's, {range}: " +
      "against overexposure by guidance (arXiv 2305.08891, which takes 0.7). Default: 0.",
    needsGuidance: true,
    scope: "request",
    processes: "same",
    json: "guidance_rescale",
  },
  fromImage: {
    kind: "path",
    flag: "from-image",
    names: "file",
    group: "Image",
    hint: "FILE",
    help:
      "Take the settings that an image carries, of BasedXL (the same bits again), A1111 and its " +
      "kin, ComfyUI, SwarmUI or Fooocus; other flags override them. What cannot be repeated is a " +
      "warning. Default: none.",
    scope: "command",
    processes: "own",
    json: null,
  },
  seed: {
    kind: "seed",
    flag: "seed",
    group: "Seeds and images",
    hint: "N",
    help: "Same seed, same image; 0 to 2^63-1. Default: random, and printed.",
    scope: "request",
    processes: "same",
    // Each image reports its own.
    json: null,
  },
  rng: {
    kind: "choice",
    flag: "rng",
    names: rngs,
    default: "cpu",
    group: "Seeds and images",
    hint: "NAME",
    help:
      "Random generator that a seed initialises, on any device: cpu for " +
      'torch.Generator("cpu"), cuda for torch.Generator("cuda"). Once a latent has more numbers ' +
      "than a GPU runs threads, torch's differ from GPU to GPU: cuda is an H100 or H200 (132 " +
      "multiprocessors), the same on an A100 up to 1856x1856 pixels, on an RTX 4090 up to " +
      "1760x1760. Default: cpu.",
    scope: "request",
    processes: "same",
    json: "rng",
  },
  imageCount: {
    kind: "whole",
    flag: "num-images",
    min: 1,
    max: imageCountMax,
    default: 1,
    group: "Seeds and images",
    hint: "N",
    help:
      "Images, {range}, each with the seed after the one before. Several are written as " +
      "sample-1.png, sample-2.png, ..., each once it is ready. Default: 1.",
    scope: "request",
    processes: "same",
    unrecorded: true,
    json: null,
  },
  batchSize: {
    kind: "whole",
    flag: "batch-size",
    min: 1,
    max: 8,
    default: 1,
    group: "Seeds and images",
    hint: "N",
    help:
      "Images computed together, {range}; more take more memory. Each image is the same alone or " +
      "in a batch. Default: 1.",
    scope: "request",
    processes: "same",
    unrecorded: true,
    json: "batch_size",
  },
  width: {
    kind: "whole",
    flag: "width",
    min: 1,
    max: 8192,
    group: "Size",
    hint: "PIXELS",
    help:
      "A multiple of the model's unit (32 for SDXL), at most 8192. Default: the model's own " +
      "size, 1024 for SDXL.",
    modelDefault: true,
    scope: "request",
    processes: "same",
    json: "width",
  },
  height: {
    kind: "whole",
    flag: "height",
    min: 1,
    max: 8192,
    group: "Size",
    hint: "PIXELS",
    help: "Like --width.",
    modelDefault: true,
    scope: "request",
    processes: "same",
    json: "height",
  },
  recipe: {
    kind: "choice",
    flag: "recipe",
    names: recipeNames,
    group: "Sampling",
    hint: "NAME",
    help:
      "Steps, sampler, noise levels and guidance of a few-step LoRA or model: {names}. Flags for " +
      "these override it; the LoRA itself is --lora's. On several ranks it also takes " +
      "--sync-mode full_sync for 8 steps or fewer. Default: none.",
    scope: "request",
    processes: "same",
    // What it sets is recorded.
    unrecorded: true,
    json: "recipe",
  },
  stepCount: {
    kind: "whole",
    flag: "num-inference-steps",
    aliases: ["steps"],
    min: 1,
    max: stepCountMax,
    group: "Sampling",
    hint: "N",
    help: "Steps, {range}. Default: the model's own, else 50.",
    modelDefault: true,
    scope: "request",
    processes: "same",
    json: "steps",
  },
  scheduler: {
    kind: "choice",
    flag: "scheduler",
    names: schedulers,
    alsoAccepts: (text: string) => samplerNamed(text) !== null,
    group: "Sampling",
    hint: "NAME",
    help:
      "Sampler: {names}. Names of diffusers, A1111 and ComfyUI will do too, as in " +
      '"DPM++ 2M Karras"; --list-schedulers explains all. Default: the model\'s own.',
    modelDefault: true,
    scope: "request",
    processes: "same",
    json: "scheduler",
  },
  sigmas: {
    kind: "choice",
    flag: "sigmas",
    names: sigmaKinds,
    orNumbers: {
      ...{ whole: false, min: 0, max: 1_000_000 },
      ...{ countMin: 2, countMax: stepCountMax + 1 },
    },
    group: "Sampling",
    hint: "NAME|LIST",
    help:
      "Spacing of the noise levels: {names}; normal is that of the timesteps, beta is diffusers' " +
      "and beta_timesteps ComfyUI's and A1111's beta, ays Align Your Steps. Or the levels " +
      "themselves with the final one, as in 14.6,3,0.5,0, which set the steps. Default: as the " +
      "scheduler's name or the model's config says.",
    scope: "request",
    processes: "same",
    json: "sigmas",
  },
  timesteps: {
    kind: "numbers",
    whole: true,
    min: 0,
    max: 999,
    countMin: 1,
    countMax: stepCountMax,
    flag: "timesteps",
    group: "Sampling",
    hint: "LIST",
    help:
      "The training timesteps to visit, {range} and falling, as in 999,749,499,249; they set the " +
      "steps. Default: as the spacing says.",
    scope: "request",
    processes: "same",
    json: "timesteps",
  },
  useKarrasSigmas: {
    kind: "boolean",
    flag: "use-karras-sigmas",
    group: "Sampling",
    help: "The same as --sigmas karras; --no-use-karras-sigmas for not, whatever the config says.",
    scope: "request",
    processes: "same",
    json: "use_karras_sigmas",
  },
  timestepSpacing: {
    kind: "choice",
    flag: "timestep-spacing",
    names: timestepSpacings,
    group: "Sampling",
    hint: "NAME",
    help: "{names}. Default: as the model's config says.",
    scope: "request",
    processes: "same",
    json: "timestep_spacing",
  },
  eta: {
    kind: "number",
    flag: "eta",
    min: 0,
    max: 1,
    group: "Sampling",
    hint: "X",
    help: "Share of fresh noise in the steps of ddim and tcd, {range}. Default: 0, for tcd 0.3.",
    scope: "request",
    processes: "same",
    json: "eta",
  },
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
      `Compute type: f32 or bf16 on the CPU (${bf16Error}), f16 or bf16 on GPUs. ` +
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
      "Decode images above the VAE's own size in blended tiles of that size, as diffusers " +
      `does: less memory, and not quite the same image: ${tilingError}. For one rank; more ` +
      "share the decode anyway, exactly.",
    scope: "request",
    processes: "same",
    json: "vae_tiling",
  },
  shareGpu: {
    kind: "boolean",
    flag: "share-gpu",
    default: false,
    group: "GPUs",
    help: "Let several ranks run on one GPU where there are fewer GPUs than ranks.",
    scope: "pipeline",
    processes: "own",
    unrecorded: true,
    json: null,
  },
  transport: {
    kind: "choice",
    flag: "transport",
    names: transports,
    default: "auto",
    group: "GPUs",
    hint: "NAME",
    help:
      "How GPUs reach each other's memory: peer (copy engines), nccl, or auto: peer where every " +
      "GPU can reach every other, else nccl; several processes take nccl. Default: auto.",
    scope: "pipeline",
    processes: "own",
    unrecorded: true,
    json: null,
  },
  fp16Accumulate: {
    kind: "boolean",
    flag: "fp16-accumulate",
    default: false,
    group: "GPUs",
    help:
      "Sum 64 products at a time in f16 in the UNet's linear layers: for consumer cards, whose " +
      "tensor cores do that at twice the rate; less exact. With --dtype f16. " +
      "Default: sums in f32.",
    scope: "pipeline",
    processes: "same",
    json: "fp16_accumulate",
  },
  cudaGraphs: {
    kind: "boolean",
    flag: "cuda-graphs",
    default: true,
    group: "GPUs",
    help: "Launch every kernel by itself, to find faults. Default: steps run as CUDA graphs.",
    scope: "pipeline",
    processes: "own",
    unrecorded: true,
    json: null,
  },
  rankCount: {
    kind: "whole",
    flag: "gpus",
    min: 1,
    max: rankCountMax,
    default: 1,
    group: "Several ranks",
    hint: "N",
    help:
      "Ranks that share an image, {range}: one per GPU, or N on the CPU where there is no GPU. " +
      "They take a guidance branch each (where N is even), then patches of rows. With several " +
      "processes (below), those of each process. Default: 1.",
    scope: "pipeline",
    processes: "same",
    json: "ranks",
  },
  splitBatch: {
    kind: "boolean",
    flag: "split-batch",
    default: true,
    group: "Several ranks",
    help:
      "Keep both guidance branches on every rank and share rows alone. Default: an even number " +
      "of ranks splits the branches first, which is exact.",
    scope: "request",
    processes: "same",
    json: "split_batch",
  },
  syncMode: {
    kind: "choice",
    flag: "sync-mode",
    names: syncModes,
    group: "Several ranks",
    hint: "NAME",
    help:
      "What patches read of each other after warm-up (norms: the statistics of group norms). " +
      `Default: corrected_async_gn, full_sync with --recipe.\n${syncModeLines}`,
    modelDefault: true,
    scope: "request",
    processes: "same",
    json: "sync_mode",
  },
  extrapolateHalos: {
    kind: "boolean",
    flag: "extrapolate-halos",
    aliases: ["predict-borders"],
    group: "Several ranks",
    help:
      "Extrapolate the neighbours' stale halo rows from their last change; " +
      "--no-extrapolate-halos for not. Nearer to one rank for the same bytes. Default: for " +
      "samplers that add no noise, patches of two units or more and a warm-up of 2 or more.",
    scope: "request",
    processes: "same",
    json: "extrapolate_halos",
  },
  warmupSteps: {
    kind: "whole",
    flag: "warmup-steps",
    min: 0,
    max: stepCountMax,
    group: "Several ranks",
    hint: "N",
    help:
      "Synchronous steps after the first, which always is: more are nearer to one rank, and " +
      "slower. 0 to the number of steps. Default: 4.",
    modelDefault: true,
    scope: "request",
    processes: "same",
    json: "warmup_steps",
  },
  listSchedulers: {
    kind: "boolean",
    flag: "list-schedulers",
    default: false,
    group: "Output",
    help: "Print the samplers, a line each, with their names elsewhere; generate nothing.",
    scope: "command",
    processes: "own",
    json: null,
  },
  outPath: {
    kind: "path",
    flag: "out-path",
    aliases: ["out"],
    names: "file",
    default: "sample.png",
    group: "Output",
    hint: "FILE",
    help:
      "The image: .png, .jpg, .jpeg, .webp or .avif. An existing file is replaced once the " +
      "new one is whole. With --num-images, -1, -2, ... go before the ending. " +
      "Default: sample.png.",
    scope: "command",
    processes: "own",
    // As the path of each image.
    json: null,
  },
  latentsPath: {
    kind: "path",
    flag: "save-latents",
    names: "file",
    extension: ".safetensors",
    group: "Output",
    hint: "FILE",
    help:
      'Also write the latents, a .safetensors file with one f32 NCHW tensor "latents" (N = ' +
      "images, in order), before division by the VAE's scaling factor; after the last " +
      "image. Default: not written.",
    scope: "command",
    processes: "own",
    json: "latents_path",
  },
  previewSteps: {
    kind: "whole",
    flag: "preview",
    min: 1,
    max: stepCountMax,
    group: "Output",
    hint: "N",
    help:
      "Every N steps ({range}), write an approximation of the image at an eighth of its size to " +
      "sample-preview.png beside it, and show it in terminals that can (kitty, Ghostty, iTerm, " +
      "WezTerm). Default: none.",
    scope: "command",
    processes: "own",
    json: null,
  },
  metadata: {
    kind: "boolean",
    flag: "metadata",
    default: true,
    group: "Output",
    help:
      "Write no parameters into images. Default: they carry A1111's text (parameters, or the " +
      "comment of EXIF), with hashes of models, and what --from-image needs to repeat them.",
    scope: "command",
    processes: "own",
    json: null,
  },
  verbose: {
    kind: "boolean",
    flag: "verbose",
    default: false,
    group: "Output",
    help: "Say more: devices, sizes, times; and the stack of an unexpected error.",
    scope: "command",
    processes: "own",
    json: null,
  },
  quiet: {
    kind: "boolean",
    flag: "quiet",
    default: false,
    group: "Output",
    help: "Print nothing but errors, a random seed, and the object of --json.",
    scope: "command",
    processes: "own",
    json: null,
  },
  json: {
    kind: "boolean",
    flag: "json",
    default: false,
    group: "Output",
    help:
      "Print one JSON object on stdout: path and seed of the first image (a seed is a string, " +
      "since 2^63-1 does not fit a JSON number), images with those of each, prompt, size, steps, " +
      'ranks, device, timings in ms, warnings; or an object "error" with code and message.',
    scope: "command",
    processes: "own",
    json: null,
  },
} as const satisfies Readonly<Record<string, Setting>>;

type Settings = typeof settings;
export type SettingKey = keyof Settings;

/** The settings of which something holds, such as `{ scope: "request" }`. */
export type KeysWhere<Condition> = {
  [Key in SettingKey]: Settings[Key] extends Condition ? Key : never;
}[SettingKey];

/** What flags give, before a model is known. */
export type GivenSettings<Key extends SettingKey = SettingKey> = {
  [K in Key]: Given<Settings[K]>;
};

/** The same once the model has filled in its defaults. */
export type ResolvedSettings<Key extends SettingKey = SettingKey> = {
  [K in Key]: Resolved<Settings[K]>;
};

/** What a request may give; everything may be left out. */
export type RequestSettings = {
  [K in KeysWhere<{ scope: "request" }>]?: Given<Settings[K]> | undefined;
};

/** In the order of the table. */
export const settingKeys = Object.keys(settings) as SettingKey[];

/** Keys that a request may give. */
export const requestKeys = settingKeys.filter((key) => settings[key].scope === "request");

/** Settings that may differ between images: one value for all, or one for each. */
export const perImageKeys = [
  ...(["prompt", "prompt2", "negativePrompt", "negativePrompt2"] as const),
  "guidanceScale",
] as const satisfies readonly SettingKey[];

/** A row without what is special about it, for code that treats all alike. */
export function settingOf(key: SettingKey): Setting {
  return settings[key];
}
