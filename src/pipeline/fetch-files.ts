/**
 * Fetches what a request names by ids of the hub: files, and of IP-Adapters the image encoder that
 * lies in the same repository.
 */
import type { HubOptions } from "../hub.ts";
import { fetchFolderBeside, fetchModelFiles } from "../models/hub-files.ts";
import type { Model } from "../models/model.ts";
import { openIpAdapter } from "../networks/ip-adapter.ts";
import { wantedEncoder } from "../networks/ip-encoder.ts";
import type { GenerateRequest } from "./request.ts";

/** Rejects with "download"; the request has not been checked yet. */
export async function fetchRequestFiles(
  request: GenerateRequest,
  model: Model,
  folders: readonly string[],
  hub: HubOptions,
): Promise<void> {
  await fetchModelFiles("lora", request.loras, folders, hub);
  await fetchModelFiles("embedding", request.embeddings, folders, hub);
  await fetchModelFiles("controlnet", request.controlnet, folders, hub);
  await fetchModelFiles("ip-adapter", request.ipAdapter, folders, hub);
  await fetchModelFiles("clip-vision", request.ipEncoder, folders, hub);
  const { ipAdapter, ipEncoder = [] } = request;
  if (!Array.isArray(ipAdapter) || ipEncoder.length > 0) return;
  for (const value of ipAdapter) {
    if (typeof value !== "string") continue;
    const wantedOf = (file: string, path: string) =>
      wantedEncoder(openIpAdapter(path, model), file);
    await fetchFolderBeside("ip-adapter", value, folders, wantedOf, hub);
  }
}
