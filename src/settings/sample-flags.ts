/**
 * The flags of `sample`, as citty reads them and as --help shows them. Numbers and names arrive as
 * strings: `options.ts` turns them into values, so that its sentences can name the range.
 */
import type { ArgsDef } from "citty";
import { tilingError } from "../pipeline/vae-tiling.ts";
import type { HelpText } from "../terminal/help.ts";
import { bf16Error } from "./dtype.ts";
import { limits, syncModeTexts } from "./limits.ts";
import { devices, schedulers, timestepSpacings } from "./names.ts";

/** One line of help per mode, names and texts in columns. */
function syncModeLines(): string {
  const names = Object.keys(syncModeTexts).map((name) => name.length);
  const column = Math.max(...names) + 2;
  const lines = Object.entries(syncModeTexts).map(([name, text]) => name.padEnd(column) + text);
  return lines.join("\n");
}

function range(name: keyof typeof limits): string {
  return `${limits[name].min} to ${limits[name].max}`;
}

export const sampleFlags = {
  promptText: {
    type: "positional",
    required: false,
    valueHint: "prompt",
    description: "What to draw, in quotes; the same as --prompt.",
  },
  prompt: {
    type: "string",
    valueHint: "TEXT",
    description: "What to draw. Default: the model's own prompt, if it brings one.",
  },
  "negative-prompt": {
    type: "string",
    valueHint: "TEXT",
    description:
      'What to keep away from. "" is encoded as an empty text; without this flag the model\'s ' +
      "config decides (SDXL: zeros). Default: none.",
  },
  "guidance-scale": {
    type: "string",
    valueHint: "X",
    description:
      `How closely to follow the prompt, ${range("guidance-scale")}; 1 and below is no ` +
      "guidance, in half the time. Default: the model's own, else 5.",
  },
  "guidance-rescale": {
    type: "string",
    valueHint: "X",
    description:
      `Bring guided outputs back to the unguided ones' deviation, ${range("guidance-rescale")}: ` +
      "where guidance overexposes (arXiv 2305.08891, which takes 0.7). Default: 0.",
  },
  seed: {
    type: "string",
    valueHint: "N",
    description: "Same seed, same image; 0 to 2^63-1. Default: random, and printed.",
  },
  rng: {
    type: "string",
    valueHint: "NAME",
    description:
      'Whose noise a seed draws, on any device: cpu for torch.Generator("cpu"), cuda for ' +
      'torch.Generator("cuda"). Once a latent has more numbers than a GPU runs threads, torch\'s ' +
      "differ from GPU to GPU: cuda is an H100 or H200 (132 multiprocessors), the same on an " +
      "A100 up to 1856x1856 pixels, on an RTX 4090 up to 1760x1760. Default: cpu.",
  },
  "num-images": {
    type: "string",
    valueHint: "N",
    description:
      `Images, ${range("num-images")}, each with the seed after the one before. Several are ` +
      "written as sample-1.png, sample-2.png, ..., each once it is drawn. Default: 1.",
  },
  "batch-size": {
    type: "string",
    valueHint: "N",
    description:
      `Images computed together, ${range("batch-size")}; more take more memory. Each image ` +
      "is the same alone or in a batch. Default: 1.",
  },
  "num-inference-steps": {
    type: "string",
    valueHint: "N",
    alias: "steps",
    description: `Steps, ${range("num-inference-steps")}. Default: the model's own, else 50.`,
  },
  scheduler: {
    type: "string",
    valueHint: "NAME",
    description: `Sampler: ${schedulers.join(", ")}. Default: the model's own.`,
  },
  "use-karras-sigmas": {
    type: "boolean",
    description:
      "Space the noise levels as Karras et al. do; --no-use-karras-sigmas for not. " +
      "Default: as the model's config says.",
  },
  "timestep-spacing": {
    type: "string",
    valueHint: "NAME",
    description: `${timestepSpacings.join(", ")}. Default: as the model's config says.`,
  },
  width: {
    type: "string",
    valueHint: "PIXELS",
    description:
      `A multiple of the model's unit (32 for SDXL), at most ${limits.width.max}. ` +
      "Default: the model's own size, 1024 for SDXL.",
  },
  height: {
    type: "string",
    valueHint: "PIXELS",
    description: "Like --width.",
  },
  model: {
    type: "string",
    valueHint: "PATH",
    description:
      "A folder in diffusers' layout. Default: the variable BASEDXL_MODEL, else the bundled " +
      "mini-sdxl.",
  },
  gpus: {
    type: "string",
    valueHint: "N",
    description:
      `Ranks that share a image, ${range("gpus")}: one per GPU, or N on the CPU where there ` +
      "is no GPU. They take a guidance branch each (where N is even), then patches of rows. With " +
      "several machines (below), those of each process. Default: 1.",
  },
  device: {
    type: "string",
    valueHint: "NAME",
    description:
      `${devices.join(", ")}. auto takes GPUs where there are any; cuda-emulated runs the ` +
      "GPU path on the CPU, slowly, for tests. Default: auto.",
  },
  dtype: {
    type: "string",
    valueHint: "NAME",
    description:
      `What is computed in: f32 or bf16 on the CPU (${bf16Error}), f16 or bf16 on GPUs. ` +
      "Default: f32 on the CPU, f16 on GPUs.",
  },
  "fp16-accumulate": {
    type: "boolean",
    description:
      "Sum 64 products at a time in f16 in the UNet's linear layers: for consumer cards, whose " +
      "tensor cores do that at twice the rate; less exact. With --dtype f16. Default: sums in f32.",
  },
  "share-gpu": {
    type: "boolean",
    description: "Let several ranks run on one GPU where there are fewer GPUs than ranks.",
  },
  transport: {
    type: "string",
    valueHint: "NAME",
    description:
      "How GPUs reach each other's memory: peer (copy engines), nccl, or auto: peer where every " +
      "GPU can reach every other, else nccl; several machines take nccl. Default: auto.",
  },
  "cuda-graphs": {
    type: "boolean",
    negativeDescription:
      "Queue every kernel by itself, to find faults. Default: steps are queued as CUDA graphs.",
  },
  "vae-tiling": {
    type: "boolean",
    description:
      "Decode images above the VAE's own size in blended tiles of that size, as diffusers " +
      "does: less memory, and not quite the same image: " +
      `${tilingError}. For one rank; more share the decode anyway, exactly.`,
  },
  threads: {
    type: "string",
    valueHint: "N",
    description:
      `CPU threads of all ranks, ${range("threads")}. Default: 0, one per core that taskset and ` +
      "container limits leave.",
  },
  "split-batch": {
    type: "boolean",
    negativeDescription:
      "Keep both guidance branches on every rank and share rows alone. Default: an even number " +
      "of ranks splits the branches first, which is exact.",
  },
  "sync-mode": {
    type: "string",
    valueHint: "NAME",
    description:
      "What patches read of each other after warm-up (norms: the statistics of group norms). " +
      `Default: corrected_async_gn.\n${syncModeLines()}`,
  },
  "predict-borders": {
    type: "boolean",
    description:
      "Move the neighbours' old halo rows on by how they changed last, as far as changes go " +
      "on; --no-predict-borders for not. Nearer to one rank for the same bytes. " +
      "Default: for samplers that add no noise, patches of two units or more and a warm-up of 2 " +
      "or more.",
  },
  "warmup-steps": {
    type: "string",
    valueHint: "N",
    description:
      "Synchronous steps after the first, which always is: more are nearer to one rank, and " +
      "slower. 0 to the number of steps. Default: 4.",
  },
  "out-path": {
    type: "string",
    valueHint: "FILE",
    alias: "out",
    description:
      "The image: .png, .jpg, .jpeg, .webp or .avif. An existing file is replaced once the " +
      "new one is whole. With --num-images, -1, -2, ... go before the ending. " +
      "Default: sample.png.",
  },
  "save-latents": {
    type: "string",
    valueHint: "FILE",
    description:
      'Also write the latents, a .safetensors file with one f32 NCHW tensor "latents" (N = ' +
      "images, in order), before division by the VAE's scaling factor; after the last " +
      "image. Default: not written.",
  },
  verbose: {
    type: "boolean",
    description: "Say more: machine, sizes, times; and the stack of an unexpected error.",
  },
  quiet: {
    type: "boolean",
    description: "Print nothing but errors, a random seed, and the object of --json.",
  },
  json: {
    type: "boolean",
    description:
      "Print one JSON object on stdout: path and seed of the first image (a seed is a string, " +
      "since 2^63-1 does not fit a JSON number), images with those of each, prompt, size, steps, " +
      'ranks, device, timings in ms, warnings; or an object "error" with code and message.',
  },
  help: { type: "boolean", description: "Print this help." },
} as const satisfies ArgsDef;

/** Flags for which an empty value means something. */
export const sampleEmptyAllowed: readonly string[] = ["negative-prompt"];

export type SampleFlags = typeof sampleFlags;

export const sampleHelp: HelpText = {
  usage: "basedxl sample [prompt] [flags]",
  summary:
    "Draws images. In a clone of the repository, basedxl is written bun run: " +
    "bun run sample --gpus 2.",
  examples: [
    "basedxl sample",
    'basedxl sample "a red house on the grass" --seed 7',
    "basedxl sample --gpus 4 --steps 25 --out house.webp",
    "basedxl sample --num-images 4 --batch-size 2",
    "basedxl sample --model ~/models/sdxl-base --width 1216 --height 832",
    "basedxl sample --seed 7 --json",
  ],
  groups: [
    ["Image", ["promptText", "prompt", "negative-prompt", "guidance-scale", "guidance-rescale"]],
    ["Seeds and images", ["seed", "rng", "num-images", "batch-size"]],
    ["Size", ["width", "height"]],
    ["Sampling", ["num-inference-steps", "scheduler", "use-karras-sigmas", "timestep-spacing"]],
    ["Model and machine", ["model", "device", "dtype", "threads", "vae-tiling"]],
    ["GPUs", ["share-gpu", "transport", "fp16-accumulate", "cuda-graphs"]],
    ["Several ranks", ["gpus", "split-batch", "sync-mode", "predict-borders", "warmup-steps"]],
    ["Output", ["out-path", "save-latents", "verbose", "quiet", "json", "help"]],
  ],
  notes: [
    "Several machines: run the same command on each with RANK (0, 1, ...), WORLD_SIZE, " +
      "MASTER_ADDR and MASTER_PORT set, as torchrun and the like do. They count processes, one " +
      "per machine or one per GPU (then LOCAL_RANK says which), and --gpus the ranks of each. " +
      "Process 0 listens on MASTER_PORT, decides a seed that nobody named, and writes the " +
      "image; the port is for networks that you trust.",
    "Exit codes: 0 drawn, 1 failed, 2 a flag was wrong, 130 stopped by Ctrl-C, 143 terminated.",
  ],
};
