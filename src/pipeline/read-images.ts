/**
 * The images that a request names, and the networks that read some of them: read before the request
 * is planned, once for all requests that name the same.
 */
import type { Model } from "../models/model.ts";
import { controlSettings } from "../settings/table/control.ts";
import { ipAdapterSettings } from "../settings/table/ip-adapter.ts";
import type { Naming } from "../settings/values.ts";
import { type ControlRequest, type ReadControl, readControls } from "./controls.ts";
import { type InputRequest, inputKeys, type ReadInput, readInput } from "./input.ts";
import { type IpAdapterRequest, type ReadIpAdapter, readIpAdapters } from "./ip-adapters.ts";
import type { RequestFiles } from "./request-files.ts";

export interface ReadImages {
  /** To start from; null for noise alone. */
  input: ReadInput | null;
  controls: readonly ReadControl[];
  ipAdapters: readonly ReadIpAdapter[];
}

export const noImages: ReadImages = { input: null, controls: [], ipAdapters: [] };

type ImagesRequest = InputRequest & ControlRequest & IpAdapterRequest;

/** Where requests are read, and for which model. */
interface Reading {
  model: Model;
  files: RequestFiles;
  naming: Naming;
}

/** Rejects with "bad-option", "bad-model", "bad-weights", "io", "setup". */
export async function readImages(
  request: ImagesRequest,
  { model, files, naming }: Reading,
): Promise<ReadImages> {
  const find = (name: string) => files.find("controlnet", name);
  const input = await readInput(request, model, naming);
  return {
    input,
    controls: await readControls(request, model, find, naming),
    ipAdapters: await readIpAdapters(request, model, files, naming),
  };
}

/** As `readImages`, once for all requests that read the same: `first` has been read. */
export function imagesReader(
  first: { request: ImagesRequest; plan: { read: ReadImages } },
  reading: Reading,
): (request: ImagesRequest) => Promise<ReadImages> {
  const known = [{ request: first.request, read: Promise.resolve(first.plan.read) }];
  return (request) => {
    const same = known.find((other) =>
      readKeys.every((key) => other.request[key] === request[key]),
    );
    if (same) return same.read;
    const read = readImages(request, reading);
    known.push({ request, read });
    return read;
  };
}

// --- internal ---

const readKeys = [
  ...inputKeys,
  ...(Object.keys(controlSettings) as (keyof typeof controlSettings)[]),
  ...(Object.keys(ipAdapterSettings) as (keyof typeof ipAdapterSettings)[]),
] satisfies readonly (keyof ImagesRequest)[];
