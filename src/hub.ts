/**
 * The Hugging Face hub: models by name, fetched into the cache that Python's huggingface_hub uses
 * too, and found there again without a network.
 *
 * In reading order: `reference.ts` (how users name a model), `settings.ts` (the variables),
 * `cached.ts` (what is here already), `open.ts` (what is fetched, and in which order), `listing.ts`
 * (what the hub has), `choose.ts` (which files of it), `blob.ts` (one file, resumed and checked),
 * `http.ts` and `refusals.ts` (requests, and what can go wrong), `cache.ts` and `lock.ts` (files).
 */
import type { HubUse } from "./hub/cache.ts";
import { findCached } from "./hub/cached.ts";
import type { WantedFolder } from "./hub/choose.ts";
import type { HubOptions, OpenedModel } from "./hub/open.ts";
import type { HubReference } from "./hub/reference.ts";
import { hubCacheFolder } from "./hub/settings.ts";

export type { WantedFolder } from "./hub/choose.ts";
export type { HubOptions, OpenedModel } from "./hub/open.ts";
export type { DownloadProgress } from "./hub/progress.ts";
export { type HubReference, hubReference, showReference } from "./hub/reference.ts";

/** The folder or the single file of a model, fetched where it is not in the cache. */
export async function openHubModel(
  reference: HubReference,
  options: HubOptions = {},
): Promise<OpenedModel> {
  return await opened(reference, "model", options);
}

/** The folder (config and weights) or the single file of a VAE. */
export async function openHubVae(
  reference: HubReference,
  options: HubOptions = {},
): Promise<OpenedModel> {
  return await opened(reference, "vae", options);
}

/** One .safetensors file, the named one or the only one: a LoRA, an embedding. */
export async function openHubFile(
  reference: HubReference,
  options: HubOptions = {},
): Promise<OpenedModel> {
  return await opened(reference, "file", options);
}

/** The folder of a component in the repository of `reference`; see `hub/open.ts`. */
export async function openHubFolder(
  reference: HubReference,
  wanted: WantedFolder,
  options: HubOptions = {},
): Promise<string | null> {
  const open = await import("./hub/open.ts");
  return (await open.openHubFolder(reference, wanted, options))?.path ?? null;
}

/** Where `reference` is in the cache; null where it is not whole there. Makes no request. */
export function findHubModel(
  reference: HubReference,
  env: Record<string, string | undefined> = process.env,
): string | null {
  const folder = hubCacheFolder(env);
  return folder && (findCached(reference, "model", folder)?.path ?? null);
}

/** As `findHubModel`, for one file. */
export function findHubFile(reference: HubReference): string | null {
  const folder = hubCacheFolder();
  return folder && (findCached(reference, "file", folder)?.path ?? null);
}

// --- internal ---

/** The code that fetches is loaded when it is needed. */
async function opened(reference: HubReference, use: HubUse, options: HubOptions) {
  const { openHub } = await import("./hub/open.ts");
  return await openHub(reference, use, options);
}
