/**
 * Settings (rows of ../table.ts): seeds and the number of images.
 */
import { imageCountMax } from "../../native/abi.ts";
import { rngs } from "../names.ts";
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
} as const satisfies Readonly<Record<string, Setting>>;
