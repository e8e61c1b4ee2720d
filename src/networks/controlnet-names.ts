/**
 * Names of a ControlNet's modules, in diffusers and in original files (lllyasviel's cldm.py), whose
 * blocks are named as a UNet's.
 */
import type { UnetConfig } from "../models/config.ts";
import { type ModuleName, unetModuleNames } from "../models/names.ts";

/** Modules with weights that a ControlNet has and a UNet has not. */
const hint: readonly (readonly [diffusers: string, original: string])[] = [
  ["controlnet_cond_embedding.conv_in", "input_hint_block.0"],
  ...[0, 1, 2, 3, 4, 5].map(
    (i) => [`controlnet_cond_embedding.blocks.${i}`, `input_hint_block.${2 * i + 2}`] as const,
  ),
  ["controlnet_cond_embedding.conv_out", "input_hint_block.14"],
  ["controlnet_mid_block", "middle_block_out.0"],
];

export function controlNetModuleNames(unet: UnetConfig): readonly ModuleName[] {
  const own = unetModuleNames(unet).filter(({ diffusers }) => {
    return !/^(up_blocks|conv_norm_out|conv_out)\b/.test(diffusers);
  });
  const skipCount = unet.layersPerBlock.reduce((sum, count) => sum + count + 1, 0);
  const outs = Array.from({ length: skipCount }, (_, i) => ({
    diffusers: `controlnet_down_blocks.${i}`,
    original: `zero_convs.${i}.0`,
  }));
  return [...own, ...hint.map(([diffusers, original]) => ({ diffusers, original })), ...outs];
}
