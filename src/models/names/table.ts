/**
 * The names of the modules of SDXL's networks in diffusers and in original files, as data. Each row
 * is a pair: the path in diffusers (transformers for text encoders), the path in original files.
 * Words in braces are indices; the files beside this one count them from a model's configuration.
 *
 * Source: the key tables of diffusers loaders/single_file_utils.py, and the module names of
 * Stability's generative-models (SGM), latent-diffusion (LDM) and OpenCLIP.
 */

export type NamePair = readonly [diffusers: string, original: string];

/** UNet2DConditionModel; SGM's openaimodel.py. */
export const unetTable = {
  whole: [
    ["time_embedding.linear_1", "time_embed.0"],
    ["time_embedding.linear_2", "time_embed.2"],
    ["add_embedding.linear_1", "label_emb.0.0"],
    ["add_embedding.linear_2", "label_emb.0.2"],
    ["conv_in", "input_blocks.0.0"],
    ["conv_norm_out", "out.0"],
    ["conv_out", "out.2"],
  ],
  /** `{block}` counts all blocks of a side; a downsampler takes one of its own. */
  down: {
    resnet: ["down_blocks.{level}.resnets.{layer}", "input_blocks.{block}.0"],
    attention: ["down_blocks.{level}.attentions.{layer}", "input_blocks.{block}.1"],
    downsampler: ["down_blocks.{level}.downsamplers.0.conv", "input_blocks.{block}.0.op"],
  },
  /** `{place}` counts the modules of the middle block. */
  mid: {
    resnet: ["mid_block.resnets.{layer}", "middle_block.{place}"],
    attention: ["mid_block.attentions.{layer}", "middle_block.{place}"],
  },
  /** `{place}` is 2 after an attention, else 1: the upsampler is the last module of its block. */
  up: {
    resnet: ["up_blocks.{level}.resnets.{layer}", "output_blocks.{block}.0"],
    attention: ["up_blocks.{level}.attentions.{layer}", "output_blocks.{block}.1"],
    upsampler: ["up_blocks.{level}.upsamplers.0.conv", "output_blocks.{block}.{place}.conv"],
  },
  resnet: [
    ["norm1", "in_layers.0"],
    ["conv1", "in_layers.2"],
    ["time_emb_proj", "emb_layers.1"],
    ["norm2", "out_layers.0"],
    ["conv2", "out_layers.3"],
  ],
  /** Only where a resnet's widths differ. */
  shortcut: ["conv_shortcut", "skip_connection"],
} as const satisfies Record<string, unknown>;

/** The same in both: modules of a UNet's attention, and of each of its transformer blocks. */
export const transformerModules = {
  ends: ["norm", "proj_in", "proj_out"],
  block: [
    "norm1",
    "attn1.to_q",
    "attn1.to_k",
    "attn1.to_v",
    "attn1.to_out.0",
    "norm2",
    "attn2.to_q",
    "attn2.to_k",
    "attn2.to_v",
    "attn2.to_out.0",
    "norm3",
    "ff.net.0.proj",
    "ff.net.2",
  ],
} as const;

/** AutoencoderKL; LDM's autoencoder. `{side}` is encoder or decoder. */
export const vaeTable = {
  quant: ["quant_conv", "quant_conv"],
  postQuant: ["post_quant_conv", "post_quant_conv"],
  side: [
    ["{side}.conv_in", "{side}.conv_in"],
    ["{side}.conv_norm_out", "{side}.norm_out"],
    ["{side}.conv_out", "{side}.conv_out"],
  ],
  downResnet: ["encoder.down_blocks.{level}.resnets.{layer}", "encoder.down.{level}.block.{layer}"],
  downsampler: [
    "encoder.down_blocks.{level}.downsamplers.0.conv",
    "encoder.down.{level}.downsample.conv",
  ],
  /** LDM counts the levels of the decoder from the finest, `{reversed}`. */
  upResnet: ["decoder.up_blocks.{level}.resnets.{layer}", "decoder.up.{reversed}.block.{layer}"],
  upsampler: ["decoder.up_blocks.{level}.upsamplers.0.conv", "decoder.up.{reversed}.upsample.conv"],
  midResnets: [
    ["{side}.mid_block.resnets.0", "{side}.mid.block_1"],
    ["{side}.mid_block.resnets.1", "{side}.mid.block_2"],
  ],
  midAttention: [
    ["{side}.mid_block.attentions.0.group_norm", "{side}.mid.attn_1.norm"],
    ["{side}.mid_block.attentions.0.to_q", "{side}.mid.attn_1.q"],
    ["{side}.mid_block.attentions.0.to_k", "{side}.mid.attn_1.k"],
    ["{side}.mid_block.attentions.0.to_v", "{side}.mid.attn_1.v"],
    ["{side}.mid_block.attentions.0.to_out.0", "{side}.mid.attn_1.proj_out"],
  ],
  resnet: ["norm1", "conv1", "norm2", "conv2"],
  shortcut: ["conv_shortcut", "nin_shortcut"],
} as const satisfies Record<string, unknown>;

/** Text encoders: transformers' CLIPTextModel and OpenCLIP's. */
export const clipTable = {
  tokens: ["text_model.embeddings.token_embedding", "token_embedding"],
  positions: ["text_model.embeddings.position_embedding", "positional_embedding"],
  layer: ["text_model.encoder.layers.{layer}", "transformer.resblocks.{layer}"],
  inLayer: [
    ["layer_norm1", "ln_1"],
    ["self_attn.out_proj", "attn.out_proj"],
    ["layer_norm2", "ln_2"],
    ["mlp.fc1", "mlp.c_fc"],
    ["mlp.fc2", "mlp.c_proj"],
  ],
  /** Thirds of one matrix, in this order. */
  inProjection: [["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], "attn.in_proj"],
  finalNorm: ["text_model.final_layer_norm", "ln_final"],
  projection: ["text_projection", "text_projection"],
} as const satisfies Record<string, unknown>;

/** Image encoders: transformers' CLIPVisionModelWithProjection and OpenCLIP's; layers as above. */
export const clipVisionTable = {
  patches: ["vision_model.embeddings.patch_embedding", "conv1"],
  positions: ["vision_model.embeddings.position_embedding", "positional_embedding"],
  /** transformers' spelling. */
  firstNorm: ["vision_model.pre_layrnorm", "ln_pre"],
  layer: ["vision_model.encoder.layers.{layer}", "transformer.resblocks.{layer}"],
  finalNorm: ["vision_model.post_layernorm", "ln_post"],
  projection: ["visual_projection", "proj"],
} as const satisfies Record<string, unknown>;
