/**
 * Settings (rows of ../table.ts): what steps take from earlier ones instead of computing it.
 */
import { stepCountMax } from "../../native/abi.ts";
import { qualities } from "../names.ts";
import type { Setting } from "../setting.ts";

export const reuseSettings = {
  quality: {
    kind: "choice",
    flag: "quality",
    names: qualities,
    default: "exact",
    group: "Reuse of steps",
    hint: "NAME",
    help:
      "How much of the UNet steps take from earlier ones: exact nothing; the others choose the " +
      "settings below that are not given, for about 1.4, 2 and 3 times the speed. What changes " +
      "is in docs/quality.md. Default: exact.",
    scope: "request",
    processes: "same",
    json: "quality",
  },
  deepCache: {
    kind: "text",
    flag: "deep-cache",
    group: "Reuse of steps",
    hint: "N|LIST",
    help:
      "Compute the deep features of the UNet in each Nth step alone (DeepCache): the others run " +
      "its outer blocks, and patches exchange nothing else. 2,4@0.5 is every second step, and " +
      "every fourth from half of the steps on; 1 is every step. Default: as --quality says.",
    scope: "request",
    processes: "same",
    json: "deep_cache",
  },
  deepCacheThreshold: {
    kind: "number",
    flag: "deep-cache-threshold",
    min: 0,
    max: 10,
    group: "Reuse of steps",
    hint: "X",
    help:
      "Choose the steps of --deep-cache by what happens: compute deep features anew when the " +
      "image that the model predicts has changed by X since, relative to its size, {range}; " +
      "0.3 is a start. Default: none, the steps are fixed.",
    scope: "request",
    processes: "same",
    json: "deep_cache_threshold",
  },
  deepCacheBranch: {
    kind: "whole",
    flag: "deep-cache-branch",
    min: 0,
    max: 31,
    default: 0,
    group: "Reuse of steps",
    hint: "N",
    help:
      "Where the outer blocks end: after N layers of the down blocks, as DeepCache counts them, " +
      "{range} and below those of the model. More are slower, and nearer to exact. Default: 0.",
    scope: "request",
    processes: "same",
    json: "deep_cache_branch",
  },
  freshDeep: {
    kind: "boolean",
    flag: "fresh-deep",
    default: true,
    group: "Reuse of steps",
    help:
      "Let full steps read the other patches' deep features of the full step before, which then " +
      "have the cached steps to arrive: for slow links, with a warm-up of 0.7 of the steps. " +
      "Default: full steps wait for each other's, which is nearer to one rank.",
    scope: "request",
    processes: "same",
    json: "fresh_deep",
  },
  crossAttentionGate: {
    kind: "whole",
    flag: "cross-attention-gate",
    min: 0,
    max: stepCountMax,
    group: "Reuse of steps",
    hint: "STEP",
    help:
      "Compute cross-attention in so many steps alone, and then keep the mean of the prompt's " +
      "and the negative prompt's (T-GATE): guidance ends there, and all ranks share the " +
      "prompt's rows. {range}; 0 is never. Default: as --quality says, which is never.",
    scope: "request",
    processes: "same",
    json: "cross_attention_gate",
  },
} as const satisfies Readonly<Record<string, Setting>>;
