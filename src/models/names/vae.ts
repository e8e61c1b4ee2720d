/**
 * Names of the VAE's modules, in diffusers and in LDM, for a configuration of any size.
 */
import type { VaeConfig } from "../config.ts";
import { inside, type ModuleName, placed } from "./module-name.ts";
import { type NamePair, vaeTable } from "./table.ts";

/** All modules with weights, each once. */
export function vaeModuleNames(vae: VaeConfig): readonly ModuleName[] {
  const names: ModuleName[] = [];
  if (vae.useQuantConv) names.push(placed(vaeTable.quant, {}));
  if (vae.usePostQuantConv) names.push(placed(vaeTable.postQuant, {}));
  for (const side of ["encoder", "decoder"]) {
    names.push(...vaeTable.side.map((pair) => placed(pair, { side })));
    for (const pair of vaeTable.midResnets) names.push(...resnet(placed(pair, { side }), false));
    if (!vae.midAttention) continue;
    names.push(...vaeTable.midAttention.map((pair) => placed(pair, { side })));
  }
  return [...names, ...downModules(vae), ...upModules(vae)];
}

// --- internal ---

function downModules(vae: VaeConfig): ModuleName[] {
  const names: ModuleName[] = [];
  vae.blockOutChannels.forEach((out, level, widths) => {
    for (let layer = 0; layer < vae.layersPerBlock; layer += 1) {
      const isWider = layer === 0 && level > 0 && widths[level - 1] !== out;
      names.push(...resnet(placed(vaeTable.downResnet, { level, layer }), isWider));
    }
    if (level < widths.length - 1) names.push(placed(vaeTable.downsampler, { level }));
  });
  return names;
}

function upModules(vae: VaeConfig): ModuleName[] {
  const names: ModuleName[] = [];
  vae.blockOutChannels.toReversed().forEach((out, level, widths) => {
    const reversed = widths.length - 1 - level;
    for (let layer = 0; layer <= vae.layersPerBlock; layer += 1) {
      const isNarrower = layer === 0 && level > 0 && widths[level - 1] !== out;
      names.push(...resnet(placed(vaeTable.upResnet, { level, layer, reversed }), isNarrower));
    }
    if (reversed > 0) names.push(placed(vaeTable.upsampler, { level, reversed }));
  });
  return names;
}

function resnet(outer: ModuleName, hasShortcut: boolean): ModuleName[] {
  const pairs: NamePair[] = vaeTable.resnet.map((path) => [path, path]);
  if (hasShortcut) pairs.push(vaeTable.shortcut);
  return inside(outer, pairs);
}
