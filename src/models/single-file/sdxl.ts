/**
 * What SDXL's configs say and no tensor of a checkpoint shows, as data in the terms of diffusers'
 * config files: the same for base, refiner, inpainting and the distilled models.
 */

/** Channels of an attention head, in the UNet and in both text encoders. */
export const headChannels = 64;

export const unetConstants = {
  norm_num_groups: 32,
  norm_eps: 1e-5,
  addition_embed_type: "text_time",
  addition_time_embed_dim: 256,
  use_linear_projection: true,
  /** 1024 pixels. */
  sample_size: 128,
};

export const clipConstants = {
  hidden_act: "quick_gelu",
  layer_norm_eps: 1e-5,
  eos_token_id: 49407,
};

export const openClipConstants = { ...clipConstants, hidden_act: "gelu" };

export const vaeConstants = {
  norm_num_groups: 32,
  scaling_factor: 0.13025,
  sample_size: 1024,
};

/** SDXL's whole autoencoder, for files without one. */
export const sdxlVae = {
  ...vaeConstants,
  block_out_channels: [128, 256, 512, 512],
  down_block_types: new Array<string>(4).fill("DownEncoderBlock2D"),
  up_block_types: new Array<string>(4).fill("UpDecoderBlock2D"),
  layers_per_block: 2,
  latent_channels: 4,
};
