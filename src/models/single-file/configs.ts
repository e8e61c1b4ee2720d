/**
 * Configs of a single-file checkpoint's networks in the terms of diffusers' config files, from the
 * shapes of its tensors and SDXL's constants.
 */
import {
  clipConstants,
  headChannels,
  openClipConstants,
  unetConstants,
  vaeConstants,
} from "./sdxl.ts";
import type { Shapes } from "./shapes.ts";
import { unetShapeOf } from "./unet-shape.ts";

/** The UNet's; null where its layout is none that diffusers' config can describe. */
export function unetConfigOf(unet: Shapes): object | null {
  const shape = unetShapeOf(unet);
  const { downDepths, upDepths, midDepth, blockOutChannels } = shape;
  const hasAttention = (depths: number[]) => depths.some((depth) => depth > 0);
  const last = downDepths.at(-1)!;
  // The middle block has no key of its own: it has the first depth of the last down level.
  const isShared = hasAttention(last) ? midDepth < 1 || last[0] === midDepth : true;
  const isWhole = [...downDepths, ...upDepths].every(
    (depths) => depths.length > 0 && (!hasAttention(depths) || !depths.includes(0)),
  );
  const isDivided = blockOutChannels.every((width) => width > 0 && width % headChannels === 0);
  if (!isShared || !isWhole || !isDivided || upDepths.length !== downDepths.length) return null;
  const listOf = (depths: number[]) => (hasAttention(depths) ? depths : depths.map(() => 1));
  const downs = downDepths.map(listOf);
  if (!hasAttention(last) && midDepth > 0) downs[downs.length - 1] = last.map(() => midDepth);
  return {
    ...unetConstants,
    in_channels: shape.inChannels,
    out_channels: shape.outChannels,
    block_out_channels: blockOutChannels,
    layers_per_block: shape.layersPerBlock,
    down_block_types: downDepths.map((depths) =>
      hasAttention(depths) ? "CrossAttnDownBlock2D" : "DownBlock2D",
    ),
    mid_block_type: midBlockType(midDepth),
    up_block_types: upDepths.map((depths) =>
      hasAttention(depths) ? "CrossAttnUpBlock2D" : "UpBlock2D",
    ),
    transformer_layers_per_block: downs,
    reverse_transformer_layers_per_block: upDepths.map(listOf),
    attention_head_dim: blockOutChannels.map((width) => width / headChannels),
    cross_attention_dim: shape.contextSize,
    projection_class_embeddings_input_dim: shape.additionSize,
  };
}

/** A text encoder's, in transformers' names. */
export function clipConfigOf(clip: Shapes, isOpenClip: boolean): object {
  const tokens = "text_model.embeddings.token_embedding.weight";
  const width = clip.dimension(tokens, 1);
  const layer = (index: number) => `text_model.encoder.layers.${index}.`;
  return {
    ...(isOpenClip ? openClipConstants : clipConstants),
    vocab_size: clip.dimension(tokens, 0),
    hidden_size: width,
    intermediate_size: clip.dimension(`${layer(0)}mlp.fc1.weight`, 0),
    num_hidden_layers: clip.count((index) => `${layer(index)}layer_norm1.weight`),
    num_attention_heads: width / headChannels,
    max_position_embeddings: clip.dimension("text_model.embeddings.position_embedding.weight", 0),
    projection_dim: clip.dimension("text_projection.weight", 0) || width,
  };
}

/** A text encoder's, in OpenCLIP's names. */
export function openClipConfigOf(clip: Shapes): object {
  const width = clip.dimension("token_embedding.weight", 1);
  const layer = (index: number) => `transformer.resblocks.${index}.`;
  return {
    ...openClipConstants,
    vocab_size: clip.dimension("token_embedding.weight", 0),
    hidden_size: width,
    intermediate_size: clip.dimension(`${layer(0)}mlp.c_fc.weight`, 0),
    num_hidden_layers: clip.count((index) => `${layer(index)}ln_1.weight`),
    num_attention_heads: width / headChannels,
    max_position_embeddings: clip.dimension("positional_embedding", 0),
    projection_dim:
      clip.dimension("text_projection", 1) || clip.dimension("text_projection.weight", 0) || width,
  };
}

/** The autoencoder's, in LDM's names. */
export function vaeConfigOf(vae: Shapes): object {
  const block = (level: number, layer: number) =>
    `encoder.down.${level}.block.${layer}.conv1.weight`;
  const levels = vae.count((level) => block(level, 0));
  const widths = Array.from({ length: levels }, (_, level) => vae.dimension(block(level, 0), 0));
  return {
    ...vaeConstants,
    in_channels: vae.dimension("encoder.conv_in.weight", 1),
    out_channels: vae.dimension("decoder.conv_out.weight", 0),
    latent_channels: vae.dimension("decoder.conv_in.weight", 1),
    block_out_channels: widths,
    down_block_types: widths.map(() => "DownEncoderBlock2D"),
    up_block_types: widths.map(() => "UpDecoderBlock2D"),
    layers_per_block: vae.count((layer) => block(0, layer)),
    mid_block_add_attention: vae.has("decoder.mid.attn_1.q.weight"),
    use_quant_conv: vae.has("quant_conv.weight"),
    use_post_quant_conv: vae.has("post_quant_conv.weight"),
  };
}

// --- internal ---

function midBlockType(depth: number): string | null {
  if (depth === -2) return null;
  return depth === -1 ? "UNetMidBlock2D" : "UNetMidBlock2DCrossAttn";
}
