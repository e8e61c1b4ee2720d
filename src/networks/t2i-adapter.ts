/**
 * T2I-Adapters for SDXL (full_adapter_xl): folders in diffusers' layout, and single files with
 * diffusers' keys, or those of the first repository, which count the layers of all blocks.
 */
import { join } from "node:path";
import { badWeights, escaped } from "../errors.ts";
import { ConfigReader } from "../models/config-reader.ts";
import { readJsonFile } from "../models/json.ts";
import type { WeightNames, WeightSource } from "../models/model.ts";
import { readSafetensorsHeader, type SafetensorsHeader } from "../models/safetensors-header.ts";
import { Shapes } from "../models/single-file/shapes.ts";
import { findWeightFiles } from "../models/weight-files.ts";
import { weightsName } from "../paths.ts";
import type { Fitting, T2iAdapterConfig, T2iAdapterNetwork } from "./network.ts";

export async function openT2iAdapterFolder(
  folder: string,
  model: Fitting,
): Promise<T2iAdapterNetwork> {
  const path = join(folder, "config.json");
  const reader = new ConfigReader(path, await readJsonFile(path));
  reader.refuseUnless("_class_name", ["T2IAdapter"]);
  if (!reader.isText("adapter_type"))
    reader.fail("adapter_type is missing: full_adapter_xl is read");
  reader.refuseUnless("adapter_type", ["full_adapter_xl"]);
  const [file] = await findWeightFiles(folder, "diffusion_pytorch_model");
  const opened = openT2iAdapterFile(readSafetensorsHeader(file!), model);
  return { ...opened, path: folder, name: weightsName(folder) };
}

/** Opens a single file, whose header is `header`. */
export function openT2iAdapterFile(header: SafetensorsHeader, model: Fitting): T2iAdapterNetwork {
  const { path, tensors } = header;
  const prefix = ["adapter.", ""].find((each) => tensors.has(`${each}conv_in.weight`));
  if (prefix === undefined) throw badWeights(path, "is a T2I-Adapter for another model than SDXL");
  const names = namesOf(header, prefix);
  const config = configOf(header, names, model);
  checkFits(path, config, model);
  const name = weightsName(path);
  return { kind: "t2i_adapter", path, name, config, weights: { files: [path], names } };
}

// --- internal ---

/** By diffusers' keys. */
function namesOf({ tensors }: SafetensorsHeader, prefix: string): WeightNames {
  const names = new Map<string, WeightSource>();
  const perBlock = 2;
  for (const key of tensors.keys()) {
    if (!key.startsWith(prefix)) continue;
    const own = key.slice(prefix.length);
    const flat = /^body\.(\d+)\.(block[12]|in_conv)\.(weight|bias)$/.exec(own);
    if (flat === null || own.includes("resnets") || isNested(tensors, prefix)) {
      names.set(`adapter.${own}`, { name: key });
      continue;
    }
    const [, number, layer, end] = flat;
    const block = Math.floor(Number(number) / perBlock);
    const resnet = layer === "in_conv" ? "" : `resnets.${Number(number) % perBlock}.`;
    names.set(`adapter.body.${block}.${resnet}${layer}.${end}`, { name: key });
  }
  return names;
}

function isNested(tensors: SafetensorsHeader["tensors"], prefix: string): boolean {
  return tensors.has(`${prefix}body.0.resnets.0.block1.weight`);
}

function configOf(
  { tensors }: SafetensorsHeader,
  names: WeightNames,
  { vaeFactor }: Fitting,
): T2iAdapterConfig {
  const found = new Shapes(
    new Map([...names].map(([key, { name }]) => [key, tensors.get(name)!])),
    "adapter.",
  );
  const resnet = (block: number, layer: number) => `body.${block}.resnets.${layer}.block1.weight`;
  const levels = found.count((i) => resnet(i, 0));
  const downscaleFactor = 2 * vaeFactor;
  const inChannels = found.dimension("conv_in.weight", 1) / downscaleFactor ** 2;
  return {
    inChannels,
    channels: Array.from({ length: levels }, (_, i) => found.dimension(resnet(i, 0), 0)),
    blockCount: found.count((i) => resnet(0, i)),
    downscaleFactor,
  };
}

/** The features must have the sizes of the UNet's blocks. */
function checkFits(path: string, config: T2iAdapterConfig, model: Fitting): void {
  const { channels, inChannels } = config;
  const { blockOutChannels: own, downTransformerLayers: depths, midBlock } = model.unet;
  const hasBlocks =
    depths.map(({ length }) => length > 0).join() === "false,true,true" && midBlock !== "none";
  const fitting = [...own, own.at(-1)];
  if (!hasBlocks) {
    throw badWeights(
      path,
      `is a T2I-Adapter for SDXL, and ${escaped(model.name, 60)} has other blocks`,
    );
  }
  if (channels.join() !== fitting.join() || ![1, 3].includes(inChannels)) {
    const positions = config.downscaleFactor ** 2;
    throw badWeights(
      path,
      `is a T2I-Adapter for another model than ${escaped(model.name, 60)}: it has channels ` +
        `${channels.join(", ")} and reads ${inChannels * positions}, where ` +
        `${fitting.join(", ")} and ${positions} or ${3 * positions} fit`,
    );
  }
}
