/**
 * VAEs, TAESDs, LoRAs, embeddings, ControlNets and IP-Adapters of the hub by their ids. What exists
 * here by that name goes first, as with models.
 */
import { basename } from "node:path";
import { BasedXLError, escaped } from "../errors.ts";
import { hubEndpoint } from "../hub/settings.ts";
import {
  findHubFile,
  type HubOptions,
  type HubReference,
  hubReference,
  openHubFile,
  openHubFolder,
  openHubVae,
  showReference,
  type WantedFolder,
} from "../hub.ts";
import type { ModelKind } from "../library/kinds.ts";
import {
  isBelowFolder,
  isPathAlone,
  Library,
  pathOf,
  resolveModelFile,
} from "../library/resolve.ts";

type Kind = Exclude<ModelKind, "checkpoint">;

/** What the hub may have by this name; null for what can only be a path or a name here. */
export function referenceTo(value: string, env = process.env): HubReference | null {
  if (isPathAlone(value) || isBelowFolder(value)) return null;
  return hubReference(value, hubEndpoint(env));
}

/** The path of what `value` names; fetched, if it is on the hub only. */
export async function openModelFile(
  kind: Kind,
  value: string,
  folders: readonly string[],
  hub: HubOptions,
): Promise<string> {
  const reference = referenceOf(kind, value, folders);
  if (reference === null) return resolveModelFile(kind, value, folders);
  try {
    const isNetwork = kind === "vae" || kind === "taesd" || kind === "controlnet";
    const open = isNetwork ? openHubVae : openHubFile;
    return (await open(reference, hub)).path;
  } catch (error) {
    if (!(error instanceof BasedXLError) || error.code !== "download") throw error;
    const shown = escaped(value, 300);
    throw new BasedXLError("download", `"${shown}" is not on this machine. ${error.message}`);
  }
}

/** Fetches those files of a request's setting that are on the hub only. */
export async function fetchModelFiles(
  kind: Kind,
  choices: unknown,
  folders: readonly string[],
  hub: HubOptions,
): Promise<void> {
  // The request has not been checked yet.
  if (!Array.isArray(choices)) return;
  const files = choices.map((choice) =>
    typeof choice === "string" ? choice : (choice as { file?: unknown } | null)?.file,
  );
  for (const file of files) {
    if (typeof file !== "string" || referenceOf(kind, file, folders) === null) continue;
    await openModelFile(kind, file, folders, hub);
  }
}

/**
 * Fetches a folder of the repository that the file `value` is from, where that is on the hub; what
 * is wanted follows from the file's path there and here.
 */
export async function fetchFolderBeside(
  kind: Kind,
  value: string,
  folders: readonly string[],
  wantedOf: (file: string, path: string) => WantedFolder,
  hub: HubOptions,
): Promise<void> {
  const reference = referenceOf(kind, value, folders);
  if (reference === null) return;
  const path = findModelFile(kind, value, folders);
  await openHubFolder(reference, wantedOf(reference.file ?? basename(path), path), hub);
}

/** The path of what `value` names, here or in the cache; else throws "bad-model". */
export function findModelFile(kind: Kind, value: string, folders: readonly string[]): string {
  const reference = referenceOf(kind, value, folders);
  if (reference === null) return resolveModelFile(kind, value, folders);
  const path = findHubFile(reference);
  if (path !== null) return path;
  throw new BasedXLError(
    "bad-model",
    `"${escaped(value, 300)}" is neither here nor in the cache of the Hugging Face hub; fetch it ` +
      `with: basedxl pull ${escaped(showReference(reference), 300)}.`,
  );
}

// --- internal ---

/** null for what is here, and for what can only be a path or a name. */
function referenceOf(kind: Kind, value: string, folders: readonly string[]): HubReference | null {
  const reference = referenceTo(value);
  if (reference === null || pathOf(kind, value) !== null) return null;
  return new Library(folders).find(kind, value) === null ? reference : null;
}
