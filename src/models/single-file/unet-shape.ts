/**
 * The layout of a UNet in SGM's names, read from its keys and shapes: levels, widths, residual
 * layers, and the depth of each attention.
 */
import type { Shapes } from "./shapes.ts";

export interface UnetShape {
  inChannels: number;
  outChannels: number;
  blockOutChannels: number[];
  /** Residual layers of each down level. */
  layersPerBlock: number[];
  /** Transformer blocks of each attention, by level; 0 where a layer has no attention. */
  downDepths: number[][];
  upDepths: number[][];
  /** -2 without a middle block, -1 for one resnet without attention. */
  midDepth: number;
  /** Width of the prompt's states; 0 where no layer attends to a prompt. */
  contextSize: number;
  /** Width of pooled prompt and sizes; 0 where the UNet does not read them. */
  additionSize: number;
}

/** The layout of the UNet in `unet`, as far as its keys say; a broken file has broken numbers. */
export function unetShapeOf(unet: Shapes): UnetShape {
  const down = downLevels(unet);
  const mid = unet.at("middle_block.");
  const hasMid = mid.has("0.in_layers.2.weight");
  return {
    inChannels: unet.dimension("input_blocks.0.0.weight", 1),
    outChannels: unet.dimension("out.2.weight", 0),
    blockOutChannels: down.map(({ channels }) => channels),
    layersPerBlock: down.map(({ depths }) => depths.length),
    downDepths: down.map(({ depths }) => depths),
    upDepths: upLevels(unet),
    midDepth: hasMid ? depthOf(mid.at("1.")) || -1 : -2,
    contextSize: contextSize(unet),
    additionSize: unet.dimension("label_emb.0.0.weight", 1),
  };
}

// --- internal ---

interface Level {
  channels: number;
  depths: number[];
}

function downLevels(unet: Shapes): Level[] {
  const levels: Level[] = [{ channels: 0, depths: [] }];
  for (let block = 1; ; block += 1) {
    const at = unet.at(`input_blocks.${block}.`);
    if (at.has("0.op.weight")) {
      levels.push({ channels: 0, depths: [] });
    } else if (at.has("0.in_layers.2.weight")) {
      const level = levels.at(-1)!;
      level.channels = at.dimension("0.in_layers.2.weight", 0);
      level.depths.push(depthOf(at.at("1.")));
    } else {
      return levels;
    }
  }
}

function upLevels(unet: Shapes): number[][] {
  const levels: number[][] = [[]];
  for (let block = 0; ; block += 1) {
    const at = unet.at(`output_blocks.${block}.`);
    if (!at.has("0.in_layers.2.weight")) return levels;
    levels.at(-1)!.push(depthOf(at.at("1.")));
    if (at.has("1.conv.weight") || at.has("2.conv.weight")) levels.push([]);
  }
}

function depthOf(attention: Shapes): number {
  return attention.count((index) => `transformer_blocks.${index}.attn2.to_k.weight`);
}

function contextSize(unet: Shapes): number {
  const places = ["middle_block.1."];
  for (let block = 1; block < 24; block += 1) places.push(`input_blocks.${block}.1.`);
  for (const place of places) {
    const size = unet.dimension(`${place}transformer_blocks.0.attn2.to_k.weight`, -1);
    if (size > 0) return size;
  }
  return 0;
}
