/**
 * Names of the UNet's modules, in diffusers and in SGM, for a configuration of any size.
 */
import type { UnetConfig } from "../config.ts";
import { inside, type ModuleName, placed } from "./module-name.ts";
import { type NamePair, transformerModules, unetTable } from "./table.ts";

/** All modules with weights, each once. */
export function unetModuleNames(unet: UnetConfig): readonly ModuleName[] {
  return [
    ...unetTable.whole.map((pair) => placed(pair, {})),
    ...downModules(unet),
    ...midModules(unet),
    ...upModules(unet),
  ];
}

// --- internal ---

function downModules(unet: UnetConfig): ModuleName[] {
  const { resnet, attention, downsampler } = unetTable.down;
  const names: ModuleName[] = [];
  let block = 1;
  let channels = unet.blockOutChannels[0]!;
  unet.blockOutChannels.forEach((out, level) => {
    for (let layer = 0; layer < unet.layersPerBlock[level]!; layer += 1, block += 1) {
      const at = { level, layer, block };
      names.push(...resnetModules(placed(resnet, at), channels !== out));
      channels = out;
      const depth = unet.downTransformerLayers[level]![layer];
      if (depth) names.push(...attentionModules(placed(attention, at), depth));
    }
    if (level === unet.blockOutChannels.length - 1) return;
    names.push(placed(downsampler, { level, block }));
    block += 1;
  });
  return names;
}

function midModules(unet: UnetConfig): ModuleName[] {
  const { resnet, attention } = unetTable.mid;
  if (unet.midBlock === "none") return [];
  const first = resnetModules(placed(resnet, { layer: 0, place: 0 }), false);
  if (unet.midBlock === "resnet") return first;
  return [
    ...first,
    ...attentionModules(placed(attention, { layer: 0, place: 1 }), unet.midTransformerLayers),
    ...resnetModules(placed(resnet, { layer: 1, place: 2 }), false),
  ];
}

function upModules(unet: UnetConfig): ModuleName[] {
  const { resnet, attention, upsampler } = unetTable.up;
  const names: ModuleName[] = [];
  let block = 0;
  unet.upTransformerLayers.forEach((depths, level) => {
    const layers = unet.layersPerBlock.at(-1 - level)! + 1;
    for (let layer = 0; layer < layers; layer += 1, block += 1) {
      const at = { level, layer, block };
      // A skip connection is joined to its input.
      names.push(...resnetModules(placed(resnet, at), true));
      const depth = depths[layer];
      if (depth) names.push(...attentionModules(placed(attention, at), depth));
    }
    if (level === unet.upTransformerLayers.length - 1) return;
    names.push(placed(upsampler, { level, block: block - 1, place: depths.length > 0 ? 2 : 1 }));
  });
  return names;
}

function resnetModules(resnet: ModuleName, hasShortcut: boolean): ModuleName[] {
  const pairs: NamePair[] = [...unetTable.resnet];
  if (hasShortcut) pairs.push(unetTable.shortcut);
  return inside(resnet, pairs);
}

function attentionModules(attention: ModuleName, depth: number): ModuleName[] {
  const paths: string[] = [...transformerModules.ends];
  for (let index = 0; index < depth; index += 1) {
    for (const path of transformerModules.block) paths.push(`transformer_blocks.${index}.${path}`);
  }
  return inside(
    attention,
    paths.map((path) => [path, path] as const),
  );
}
