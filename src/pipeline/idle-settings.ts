/**
 * Warnings about settings that were asked for and do nothing beside the others of the request.
 */

import type { SyncMode } from "../settings/names.ts";
import type { SettingKey } from "../settings/table.ts";
import type { Naming } from "../settings/values.ts";
import type { Layout } from "./layout.ts";
import type { Reuse } from "./reuse.ts";

interface Settings {
  balance: string;
  compressExchange: string;
  syncMode: SyncMode;
  warmupSteps: number | "auto";
  deepCacheBranch: number;
  freshDeep: boolean;
  batchSize: number;
}

export function idleWarnings(
  settings: Settings,
  plan: {
    given: { batchSize: number };
    reuse: Reuse | null;
    batches: readonly { layout: Layout }[];
    naming: Naming;
  },
): string[] {
  const { given, reuse, batches, naming } = plan;
  const hasPatches = batches.some(
    ({ layout }) => layout.patches.length > 1 || (layout.unguidedPatches?.length ?? 0) > 1,
  );
  const isAlone = settings.batchSize < Math.min(given.batchSize, batches.length);
  const cachesNothing = (reuse?.outerSkips ?? 0) === 0;
  const unread = `no steps reuse deep features of several patches`;
  const unshared = "no ranks share the rows of an image";
  const idle: [SettingKey, boolean, string][] = [
    ["compressExchange", settings.compressExchange !== "none" && !hasPatches, unshared],
    ["balance", settings.balance !== "off" && !hasPatches, unshared],
    ["warmupSteps", settings.warmupSteps === "auto" && !hasPatches, unshared],
    [
      "warmupSteps",
      settings.warmupSteps === "auto" && hasPatches && settings.syncMode === "full_sync",
      `with ${naming("syncMode")} full_sync every step is synchronous`,
    ],
    [
      "deepCacheBranch",
      settings.deepCacheBranch > 0 && cachesNothing,
      `it needs steps that reuse deep features (${naming("deepCache")})`,
    ],
    ["freshDeep", !settings.freshDeep && (cachesNothing || !hasPatches), unread],
    [
      "batchSize",
      isAlone,
      `with ${naming("deepCacheThreshold")} each image decides by itself which steps it reuses`,
    ],
  ];
  return idle.flatMap(([key, isIdle, why]) =>
    isIdle ? [`${naming(key)} is not used: ${why}.`] : [],
  );
}

/** The same for what depends on the devices, which are chosen after a first request is planned. */
export function idleOnDevice(
  { balance, syncMode }: Pick<Settings, "balance" | "syncMode">,
  device: "cpu" | "cuda",
  naming: Naming,
): string[] {
  if (device === "cpu" || balance !== "auto" || syncMode !== "full_sync") return [];
  return [
    `${naming("balance")} auto is not used: with ${naming("syncMode")} full_sync GPUs wait for \
each other in every step, and none can be timed alone.`,
  ];
}
