/**
 * What a file or folder beside a model is: its kind, by keys and shapes or by the config of a
 * folder, and all that the library needs of it.
 */
import { join } from "node:path";
import { badWeights } from "../errors.ts";
import { readJsonFile } from "../models/json.ts";
import { readSafetensorsHeader } from "../models/safetensors-header.ts";
import { classifyHeader, describeFile } from "../models/single-file/classify.ts";
import { isFolder } from "../paths.ts";
import { openControlNetFile, openControlNetFolder } from "./controlnet.ts";
import type { ControlNetwork, Fitting } from "./network.ts";
import { openT2iAdapterFile, openT2iAdapterFolder } from "./t2i-adapter.ts";

/**
 * Opens what steers the UNet by a hint, at the absolute `path`. Rejects with "bad-model" or
 * "bad-weights" for what is none or is for another model.
 */
export async function openControl(path: string, model: Fitting): Promise<ControlNetwork> {
  if (isFolder(path)) {
    const isAdapter = (await classOf(path)) === "T2IAdapter";
    return await (isAdapter ? openT2iAdapterFolder : openControlNetFolder)(path, model);
  }
  const header = readSafetensorsHeader(path);
  const found = classifyHeader(header);
  if (found.kind === "controlnet") return openControlNetFile(header, model);
  if (found.kind === "adapter" && found.detail === "T2I-Adapter") {
    return openT2iAdapterFile(header, model);
  }
  throw badWeights(path, `is ${describeFile(found)}, not a ControlNet or T2I-Adapter`);
}

// --- internal ---

/** diffusers' class of a folder. */
async function classOf(folder: string): Promise<unknown> {
  const json = await readJsonFile(join(folder, "config.json"));
  return (json as { _class_name?: unknown } | null)?._class_name;
}
