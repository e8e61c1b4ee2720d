/**
 * What a file or folder beside a model is: its kind, by keys and shapes or by the config of a
 * folder, and all that the library needs of it.
 */
import { statSync } from "node:fs";
import { BasedXLError, escaped } from "../errors.ts";
import { readSafetensorsHeader } from "../models/safetensors-header.ts";
import { classifyHeader, describeFile } from "../models/single-file/classify.ts";
import { type Fitting, openControlNetFile, openControlNetFolder } from "./controlnet.ts";
import type { ControlNetwork } from "./network.ts";

/**
 * Opens what steers the UNet by a hint, at the absolute `path`. Rejects with "bad-model" or
 * "bad-weights" for what is none or is for another model.
 */
export async function openControl(path: string, model: Fitting): Promise<ControlNetwork> {
  if (statSync(path).isDirectory()) return await openControlNetFolder(path, model);
  const header = readSafetensorsHeader(path);
  const found = classifyHeader(header);
  if (found.kind === "controlnet") return openControlNetFile(header, model);
  throw new BasedXLError(
    "bad-weights",
    `${escaped(path, 300)} is ${describeFile(found)}, not a ControlNet for the model.`,
  );
}
