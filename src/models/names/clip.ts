/**
 * Names of the modules of CLIP's encoders, in transformers and in original files.
 */
import type { ClipConfig } from "../config.ts";
import { inside, type ModuleName, placed } from "./module-name.ts";
import { clipTable, clipVisionTable, type NamePair } from "./table.ts";

/** All modules with weights, each once, as OpenCLIP has them. */
export function openClipModuleNames(clip: ClipConfig): readonly ModuleName[] {
  const names: ModuleName[] = [
    placed(clipTable.tokens, {}),
    { ...placed(clipTable.positions, {}), joint: null },
  ];
  names.push(...layerModules(clipTable.layer, clip.layerCount));
  names.push(placed(clipTable.finalNorm, {}));
  if (clip.projectionSize > 0) {
    names.push({ ...placed(clipTable.projection, {}), joint: null, transposed: true });
  }
  return names;
}

/** The same modules in files that keep transformers' names, as for CLIP-L. */
export function clipModuleNames(clip: ClipConfig): readonly ModuleName[] {
  return openClipModuleNames(clip).map(({ diffusers }) => ({ diffusers, original: diffusers }));
}

/** The same of an image encoder, but for its class embedding, which is no module's. */
export function openClipVisionModuleNames(layerCount: number): readonly ModuleName[] {
  return [
    placed(clipVisionTable.patches, {}),
    { ...placed(clipVisionTable.positions, {}), joint: null },
    placed(clipVisionTable.firstNorm, {}),
    ...layerModules(clipVisionTable.layer, layerCount),
    placed(clipVisionTable.finalNorm, {}),
    { ...placed(clipVisionTable.projection, {}), joint: null, transposed: true },
  ];
}

// --- internal ---

function layerModules(pair: NamePair, layerCount: number): ModuleName[] {
  const names: ModuleName[] = [];
  for (let layer = 0; layer < layerCount; layer += 1) {
    const outer = placed(pair, { layer });
    names.push(...inside(outer, clipTable.inLayer));
    const [thirds, joined] = clipTable.inProjection;
    thirds.forEach((path, index) => {
      names.push({
        diffusers: `${outer.diffusers}.${path}`,
        original: `${outer.original}.${joined}`,
        part: [index, thirds.length],
        joint: "_",
      });
    });
  }
  return names;
}
