/**
 * Kinds of safetensors files, recognised by a few of the keys and shapes that published files of
 * that kind have.
 */
import { describe, expect, test } from "bun:test";
import { classifyHeader, describeFile } from "../../src/models/single-file/classify.ts";

/** A header with these tensors; shapes do not matter where none is given. */
function header(tensors: Record<string, number[]> | string[]) {
  const shapes = Array.isArray(tensors)
    ? tensors.map((key) => [key, [8]] as const)
    : Object.entries(tensors);
  return {
    tensors: new Map(
      shapes.map(([key, shape]) => [key, { dtype: "F16", shape, begin: 0, end: 0 }]),
    ),
    metadata: new Map<string, string>(),
  };
}

const context = (size: number, prefix = "model.diffusion_model.") => ({
  [`${prefix}input_blocks.0.0.weight`]: [320, 4, 3, 3],
  [`${prefix}input_blocks.1.0.in_layers.2.weight`]: [320, 320, 3, 3],
  [`${prefix}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight`]: [320, size],
});
const labels = { "model.diffusion_model.label_emb.0.0.weight": [1280, 2816] };
const encoder = { "cond_stage_model.transformer.text_model.x.weight": [1] };

const files: [string, Record<string, number[]> | string[]][] = [
  ["a checkpoint of Stable Diffusion 1.5", { ...context(768), ...encoder }],
  [
    "a TAESD (SDXL or Stable Diffusion 1.5)",
    { "1.weight": [64, 4, 3, 3], "3.conv.0.weight": [64, 64, 3, 3] },
  ],
  [
    "a TAESD (SDXL or Stable Diffusion 1.5)",
    { "encoder.layers.0.weight": [64, 3, 3, 3], "decoder.layers.0.weight": [64, 4, 3, 3] },
  ],
  [
    "a TAESD (Stable Diffusion 3 or Flux)",
    { "taesd_decoder.1.weight": [64, 16, 3, 3], "taesd_decoder.3.conv.0.weight": [64, 64, 3, 3] },
  ],
  ["a TAESD (the encoder alone)", { "0.weight": [64, 3, 3, 3], "1.conv.0.weight": [64, 64, 3, 3] }],
  ["a checkpoint of Stable Diffusion 2", { ...context(1024), ...encoder }],
  ["a checkpoint of Stable unCLIP 2.1", { ...context(1024), ...encoder, ...labels }],
  ["the diffusion model of Stable Diffusion 1.5 alone", context(768, "")],
  ["a checkpoint of SDXL that lacks label_emb", { ...context(2048), ...encoder }],
  [
    "a checkpoint of Stable Diffusion 1.5 inpainting",
    {
      ...context(768),
      ...encoder,
      "model.diffusion_model.input_blocks.0.0.weight": [320, 9, 3, 3],
    },
  ],
  [
    "a checkpoint of Stable Video Diffusion",
    {
      ...context(1024),
      "model.diffusion_model.input_blocks.1.0.time_stack.in_layers.2.weight": [1],
      "conditioner.x": [1],
    },
  ],
  [
    "a checkpoint of SDXL's kind in another size",
    { ...context(192), ...labels, "conditioner.x": [1] },
  ],
  [
    "a checkpoint of Stable Diffusion 3",
    [
      "model.diffusion_model.joint_blocks.0.context_block.adaLN_modulation.1.bias",
      "text_encoders.clip_l.x",
    ],
  ],
  ["the diffusion model of Flux alone", ["double_blocks.0.img_attn.norm.key_norm.scale"]],
  [
    "the diffusion model of Flux 2 alone",
    ["single_stream_modulation.lin.weight", "double_blocks.0.img_attn.qkv.weight"],
  ],
  [
    "the diffusion model of Chroma alone",
    ["distilled_guidance_layer.in_proj.bias", "double_blocks.0.img_attn.qkv.weight"],
  ],
  [
    "the diffusion model of PixArt alone",
    ["adaln_single.linear.weight", "transformer_blocks.0.attn1.to_q.weight"],
  ],
  ["the diffusion model of PixArt alone", ["t_block.1.weight", "blocks.0.attn.qkv.weight"]],
  [
    "the diffusion model of Qwen-Image alone",
    [
      "transformer_blocks.0.img_mlp.net.0.proj.weight",
      "transformer_blocks.0.attn.add_q_proj.weight",
    ],
  ],
  [
    "the diffusion model of Lumina or Z-Image alone",
    ["model.diffusion_model.cap_embedder.0.weight"],
  ],
  ["the diffusion model of Wan alone", ["model.diffusion_model.head.modulation"]],
  [
    "the diffusion model of an SDXL folder alone",
    ["conv_in.weight", "time_embedding.linear_1.weight", "add_embedding.linear_1.weight"],
  ],
  [
    "a LoRA for SDXL",
    { "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight": [8, 2048] },
  ],
  [
    "a LoRA for Stable Diffusion 1.5",
    {
      "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": [
        8, 768,
      ],
    },
  ],
  ["a LoRA for SDXL", ["lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha"]],
  [
    "a LoRA for SDXL",
    { "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": [4, 2048] },
  ],
  ["a LoRA for Flux", ["transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight"]],
  ["a LoRA for Flux", ["lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"]],
  ["a LoRA", ["lora_unet_mid_block_attentions_0_proj_in.hada_w1_a"]],
  ["a LoRA", ["lycoris_x.lokr_w1"]],
  [
    "a ControlNet for SDXL",
    { "controlnet_cond_embedding.conv_in.weight": [1], "add_embedding.linear_1.weight": [1] },
  ],
  [
    "a ControlNet for Stable Diffusion 1.5",
    { "control_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": [320, 768] },
  ],
  ["an adapter (T2I-Adapter)", ["adapter.conv_in.weight", "adapter.body.0.resnets.0.block1.bias"]],
  ["an adapter (T2I-Adapter)", ["conv_in.weight", "body.0.block1.weight"]],
  ["an adapter (IP-Adapter)", ["image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"]],
  [
    "a VAE of SDXL or Stable Diffusion 1.5",
    { "decoder.conv_in.weight": [512, 4, 3, 3], "decoder.up.0.block.0.conv1.weight": [1] },
  ],
  [
    "a VAE of SDXL or Stable Diffusion 1.5",
    {
      "first_stage_model.decoder.conv_in.weight": [512, 4, 3, 3],
      "first_stage_model.decoder.up.0.block.0.conv1.weight": [1],
    },
  ],
  [
    "a VAE of SDXL or Stable Diffusion 1.5",
    { "decoder.conv_in.weight": [512, 4, 3, 3], "decoder.up_blocks.0.resnets.0.conv1.weight": [1] },
  ],
  [
    "a VAE of Stable Diffusion 3 or Flux",
    { "decoder.conv_in.weight": [512, 16, 3, 3], "decoder.up.0.block.0.conv1.weight": [1] },
  ],
  ["a text encoder (CLIP)", ["text_model.encoder.layers.0.mlp.fc1.weight"]],
  ["a text encoder (OpenCLIP)", ["transformer.resblocks.0.ln_1.weight"]],
  ["a text encoder (T5)", ["encoder.block.0.layer.0.SelfAttention.q.weight"]],
  ["an embedding (textual inversion) for SDXL", { clip_l: [2, 768], clip_g: [2, 1280] }],
  ["an embedding (textual inversion) for Stable Diffusion 1.5", { emb_params: [2, 768] }],
  ["an embedding (textual inversion) for Stable Diffusion 2", { emb_params: [2, 1024] }],
  ["an upscaler (ESRGAN)", ["model.1.sub.0.RDB1.conv1.0.weight"]],
  ["a file of an unknown kind", ["lm_head.weight"]],
  ["a file of an unknown kind", []],
];

describe("kinds of files", () => {
  for (const [index, [expected, tensors]] of files.entries()) {
    test(`${index}: ${expected}`, () => {
      expect(describeFile(classifyHeader(header(tensors)))).toBe(expected);
    });
  }
});
