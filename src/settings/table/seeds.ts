/**
 * Settings (rows of ../table.ts): seeds and the number of images.
 */
import { imageCountMax } from "../../native/abi.ts";
import { noiseOrders, noiseSamplers, rngs, stepRngs } from "../names.ts";
import type { Setting } from "../setting.ts";

export const seedSettings = {
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
    group: "Seeds and images",
    hint: "NAME",
    help:
      "Random generator that a seed initialises, on any device: cpu for " +
      'torch.Generator("cpu"), cuda for torch.Generator("cuda"). Once a latent has more numbers ' +
      "than a GPU runs threads, torch's differ from GPU to GPU: cuda is an H100 or H200 (132 " +
      "multiprocessors), the same on an A100 up to 1856x1856 pixels, on an RTX 4090 up to " +
      "1760x1760. Default: as --compat says, cpu.",
    modelDefault: true,
    scope: "request",
    processes: "same",
    json: "rng",
  },
  noiseOrder: {
    kind: "choice",
    flag: "noise-order",
    names: noiseOrders,
    group: "Seeds and images",
    hint: "NAME",
    help:
      "image: each image's noise is of its own seed, as in A1111 and diffusers; batch: one seed " +
      "makes the noise of all --num-images in a row, as of a batch in ComfyUI. " +
      "Default: as --compat says, image.",
    modelDefault: true,
    scope: "request",
    processes: "same",
    json: "noise_order",
  },
  noiseBatch: {
    kind: "whole",
    flag: "noise-batch",
    min: 1,
    max: imageCountMax,
    group: "Seeds and images",
    hint: "N",
    help:
      "Images in the batch of --noise-order batch, {range}, of which fewer may be generated. " +
      "Default: those that are.",
    scope: "request",
    processes: "same",
    json: "noise_batch",
  },
  noiseIndex: {
    kind: "whole",
    flag: "noise-index",
    min: 0,
    max: imageCountMax - 1,
    default: 0,
    group: "Seeds and images",
    hint: "N",
    help: "The first image's place in that batch, {range}. Default: 0.",
    scope: "request",
    processes: "same",
    json: "noise_index",
  },
  stepRng: {
    kind: "choice",
    flag: "step-rng",
    names: stepRngs,
    group: "Seeds and images",
    hint: "NAME",
    help:
      "Generator of the noise that ancestral samplers add: same goes on after the first latent, " +
      "as in diffusers and A1111; cuda is a new one of the same seed, as in ComfyUI on a GPU; " +
      "cpu a new one of the seed plus 1, as there on a CPU. Default: as --compat says, same.",
    modelDefault: true,
    scope: "request",
    processes: "same",
    json: "step_rng",
  },
  noiseSampler: {
    kind: "choice",
    flag: "noise-sampler",
    names: noiseSamplers,
    default: "auto",
    group: "Seeds and images",
    hint: "NAME",
    help:
      "Noise in steps: generator for new numbers in each, brownian for a Brownian tree " +
      "(torchsde), as k-diffusion's SDE samplers have it, with --rng; brownian_gpu for the same " +
      "with numbers of a GPU (ComfyUI's samplers ending in _gpu). Default: auto, as the " +
      "sampler has it.",
    scope: "request",
    processes: "same",
    json: "noise_sampler",
  },
  variationSeed: {
    kind: "seed",
    flag: "variation-seed",
    group: "Seeds and images",
    hint: "N",
    help:
      "Seed of another noise that the first latent is on the way to, by --variation-strength, as " +
      "in A1111: --num-images then count it up, and not --seed. Default: none.",
    scope: "request",
    processes: "same",
    json: "variation_seed",
  },
  variationStrength: {
    kind: "number",
    flag: "variation-strength",
    min: 0,
    max: 1,
    default: 0,
    group: "Seeds and images",
    hint: "X",
    help: "How far, {range}: 0 is --seed's image and 1 that of --variation-seed. Default: 0.",
    scope: "request",
    processes: "same",
    json: "variation_strength",
  },
  etaNoiseSeedDelta: {
    kind: "whole",
    flag: "eta-noise-seed-delta",
    aliases: ["ensd"],
    min: 0,
    max: 1_000_000_000,
    default: 0,
    group: "Seeds and images",
    hint: "N",
    help:
      "Ancestral steps take the noise of a new generator, of the seed plus N ({range}): A1111's " +
      "ENSD, 31337 with NovelAI's. For --step-rng same. Default: 0, for none.",
    scope: "request",
    processes: "same",
    json: "eta_noise_seed_delta",
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
      "Images, {range}, each with the seed after the one before (see --noise-order). Several " +
      "are written as sample-1.png, sample-2.png, ..., each once it is ready. Default: 1.",
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
} as const satisfies Readonly<Record<string, Setting>>;
