/**
 * Warnings about settings that were asked for and do nothing beside the others of the request.
 */
import type { SettingKey } from "../settings/table.ts";
import type { Naming } from "../settings/values.ts";
import type { Layout } from "./layout.ts";
import type { Reuse } from "./reuse.ts";

interface Settings {
  balance: string;
  compressExchange: string;
  deepCacheBranch: number;
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
  const unshared = "no ranks share the rows of an image";
  const idle: [SettingKey, boolean, string][] = [
    ["compressExchange", settings.compressExchange !== "none" && !hasPatches, unshared],
    ["balance", settings.balance !== "off" && !hasPatches, unshared],
    [
      "deepCacheBranch",
      settings.deepCacheBranch > 0 && cachesNothing,
      `it needs steps that reuse deep features (${naming("deepCache")})`,
    ],
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
