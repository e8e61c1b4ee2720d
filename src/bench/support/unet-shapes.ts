/**
 * Names and shapes of a network's weights, in diffusers' names, from its config: for models of
 * random weights.
 */
import type { UnetConfig } from "../../models/config.ts";

export type Shapes = Map<string, number[]>;

/** Adds the weights of layers under one key of the checkpoint. */
export class Tree {
  constructor(
    readonly shapes: Shapes,
    private readonly prefix = "",
  ) {}

  at(name: string): Tree {
    return new Tree(this.shapes, `${this.prefix}${name}.`);
  }

  norm(name: string, channels: number): void {
    this.shapes.set(`${this.prefix}${name}.weight`, [channels]);
    this.shapes.set(`${this.prefix}${name}.bias`, [channels]);
  }

  linear(name: string, out: number, inner: number, bias = true): void {
    this.shapes.set(`${this.prefix}${name}.weight`, [out, inner]);
    if (bias) this.shapes.set(`${this.prefix}${name}.bias`, [out]);
  }

  conv(name: string, out: number, inner: number, side = 3): void {
    this.shapes.set(`${this.prefix}${name}.weight`, [out, inner, side, side]);
    this.shapes.set(`${this.prefix}${name}.bias`, [out]);
  }

  attention(channels: number, context: number, bias: boolean): void {
    this.linear("to_q", channels, channels, bias);
    this.linear("to_k", channels, context, bias);
    this.linear("to_v", channels, context, bias);
    this.linear("to_out.0", channels, channels);
  }

  /** `time` is 0 for the VAE's, which have no time embedding. */
  resnet(inner: number, out: number, time: number): void {
    this.norm("norm1", inner);
    this.conv("conv1", out, inner);
    if (time > 0) this.linear("time_emb_proj", out, time);
    this.norm("norm2", out);
    this.conv("conv2", out, out);
    if (inner !== out) this.conv("conv_shortcut", out, inner, 1);
  }

  transformer(channels: number, depth: number, context: number): void {
    if (depth === 0) return;
    this.norm("norm", channels);
    this.linear("proj_in", channels, channels);
    for (let i = 0; i < depth; i++) {
      const block = this.at(`transformer_blocks.${i}`);
      for (const norm of ["norm1", "norm2", "norm3"]) block.norm(norm, channels);
      block.at("attn1").attention(channels, channels, false);
      block.at("attn2").attention(channels, context, false);
      block.linear("ff.net.0.proj", 8 * channels, channels);
      block.linear("ff.net.2", channels, 4 * channels);
    }
    this.linear("proj_out", channels, channels);
  }
}

/** The weights of a UNet2DConditionModel. */
export function unetShapes(c: UnetConfig): Shapes {
  const tree = new Tree(new Map());
  const last = c.blockOutChannels.length - 1;
  const at = (level: number) => c.blockOutChannels[Math.min(last, Math.max(0, level))]!;
  const time = 4 * at(0);
  const transformer = (block: Tree, index: number, level: number, depth = 0) =>
    block.at(`attentions.${index}`).transformer(at(level), depth, c.crossAttentionDim);
  tree.conv("conv_in", at(0), c.inChannels);
  tree.linear("time_embedding.linear_1", time, at(0));
  tree.linear("time_embedding.linear_2", time, time);
  tree.linear("add_embedding.linear_1", time, c.additionInputDim);
  tree.linear("add_embedding.linear_2", time, time);
  for (let level = 0; level <= last; level++) {
    const block = tree.at(`down_blocks.${level}`);
    for (let i = 0; i < c.layersPerBlock[level]!; i++) {
      block.at(`resnets.${i}`).resnet(i === 0 ? at(level - 1) : at(level), at(level), time);
      transformer(block, i, level, c.downTransformerLayers[level]![i]);
    }
    if (level < last) block.conv("downsamplers.0.conv", at(level), at(level));
  }
  const middle = tree.at("mid_block");
  if (c.midBlock !== "none") middle.at("resnets.0").resnet(at(last), at(last), time);
  if (c.midBlock === "cross_attention") {
    transformer(middle, 0, last, c.midTransformerLayers);
    middle.at("resnets.1").resnet(at(last), at(last), time);
  }
  for (let index = 0; index <= last; index++) {
    const level = last - index;
    const block = tree.at(`up_blocks.${index}`);
    const count = c.layersPerBlock[level]! + 1;
    for (let i = 0; i < count; i++) {
      const below = i === 0 ? at(level + 1) : at(level);
      const skip = i === count - 1 ? at(level - 1) : at(level);
      block.at(`resnets.${i}`).resnet(below + skip, at(level), time);
      transformer(block, i, level, c.upTransformerLayers[index]![i]);
    }
    if (level > 0) block.conv("upsamplers.0.conv", at(level), at(level));
  }
  tree.norm("conv_norm_out", at(0));
  tree.conv("conv_out", c.outChannels, at(0));
  return tree.shapes;
}
