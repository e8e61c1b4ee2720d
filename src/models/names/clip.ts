/**
 * Names of a text encoder's modules, in transformers and in original files.
 */
import type { ClipConfig } from "../config.ts";
import { inside, type ModuleName, placed } from "./module-name.ts";
import { clipTable } from "./table.ts";

/** All modules with weights, each once, as OpenCLIP has them. */
export function openClipModuleNames(clip: ClipConfig): readonly ModuleName[] {
  const names: ModuleName[] = [
    placed(clipTable.tokens, {}),
    { ...placed(clipTable.positions, {}), joint: null },
  ];
  for (let layer = 0; layer < clip.layerCount; layer += 1) {
    const outer = placed(clipTable.layer, { layer });
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
