/**
 * Models with the blocks of distilled SDXL models, from tests/fixtures/distilled.json: the golden
 * model with another UNet, whose weights are those of the formula, so that they need not be stored.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { weightsFileBytes } from "../../src/bench/support/formula-weights.ts";
import { unetShapes } from "../../src/bench/support/unet-shapes.ts";
import { parseUnetConfig } from "../../src/models/config.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import type { Model } from "../../src/models/model.ts";
import variants from "../fixtures/distilled.json";

type DistilledName = keyof typeof variants;

export const distilledNames = Object.keys(variants) as DistilledName[];

const golden = join(import.meta.dir, "../fixtures/golden/model");
const folders: string[] = [];

export async function distilledModel(name: DistilledName): Promise<Model> {
  const configPath = join(golden, "unet/config.json");
  const json = JSON.parse(readFileSync(configPath, "utf8"));
  const unet = parseUnetConfig(configPath, { ...json, ...variants[name] });
  const folder = mkdtempSync(join(tmpdir(), "basedxl-distilled-"));
  folders.push(folder);
  const path = join(folder, `${name}.safetensors`);
  const shapes = Object.fromEntries(unetShapes(unet));
  writeFileSync(path, weightsFileBytes({ path: "unet/file", dtype: "F32", shapes }));
  const model = await openModelFolder(golden);
  const weights = { ...model.weights, unet: { files: [path], names: null } };
  return { ...model, name, unet, weights };
}

export function removeDistilled(): void {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
}
