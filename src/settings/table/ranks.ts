/**
 * Settings (rows of ../table.ts): how several ranks share an image.
 */
import { rankCountMax, stepCountMax } from "../../native/abi.ts";
import { compressions, syncModeLines, syncModes } from "../names.ts";
import type { Setting } from "../setting.ts";

export const rankSettings = {
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
  compressExchange: {
    kind: "choice",
    flag: "compress-exchange",
    names: compressions,
    default: "none",
    group: "Several ranks",
    hint: "HOW",
    help:
      "Send keys and values as their change since the step before in 8 or 4 bits, for cards that " +
      "reach each other over PCIe: {names}. What the bits lose is sent with the next change. " +
      "Every rank keeps the keys and values of all. Not with full_sync. Default: none.",
    scope: "request",
    processes: "same",
    json: "compress_exchange",
  },
  balance: {
    kind: "text",
    flag: "balance",
    default: "off",
    group: "Several ranks",
    hint: "SHARES",
    help:
      "Rows by the speed of unequal ranks: a share for each, such as 2:1:1:1 (2:1:1:1@N holds " +
      "after N steps), or auto, which times them in the first steps. Ranks then share rows " +
      "alone (--no-split-batch). Default: off.",
    scope: "request",
    processes: "same",
    json: "balance",
  },
  warmupSteps: {
    kind: "whole",
    flag: "warmup-steps",
    min: 0,
    max: stepCountMax,
    orAuto: true,
    group: "Several ranks",
    hint: "N",
    help:
      "Synchronous steps after the first, which always is: more are nearer to one rank, and " +
      "slower. 0 to the number of steps, or auto: until the model's output comes to rest. " +
      "Default: 4; 0.7 of the steps with --no-fresh-deep.",
    modelDefault: true,
    scope: "request",
    processes: "same",
    json: "warmup_steps",
  },
} as const satisfies Readonly<Record<string, Setting>>;
