/**
 * Settings (rows of ../table.ts): how GPUs are used.
 */
import { attentions, transports } from "../names.ts";
import type { Setting } from "../setting.ts";

export const gpuSettings = {
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
  attention: {
    kind: "choice",
    flag: "attention",
    names: attentions,
    default: "auto",
    group: "GPUs",
    hint: "NAME",
    help:
      "What computes attention: cudnn (9.13 or newer), own kernels, or auto: cuDNN where it has " +
      "one, else own. The first image of a size waits while cuDNN compiles some. Default: auto.",
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
} as const satisfies Readonly<Record<string, Setting>>;
