/**
 * The nodes of ComfyUI that are translated, with their inputs as ComfyUI declares them and limits
 * as this program has them. Every other node is refused by name.
 * Source: ComfyUI, nodes.py, comfy_extras/nodes_clip_sdxl.py and nodes_primitive.py.
 */
import { samplerNamed } from "../../../settings/names.ts";
import { sigmasNamed } from "../../../settings/samplers.ts";
import { settings } from "../../../settings/table.ts";
import { imageNodeTypes } from "./image-node-types.ts";
import {
  choice,
  clip,
  conditioning,
  type InputType,
  image,
  latent,
  listed,
  model,
  type NodeType,
  number,
  sideMax,
  type ValueType,
  vae,
  whole,
} from "./input-types.ts";

export function nodeTypeOf(name: unknown): NodeType | null {
  return typeof name === "string" && Object.hasOwn(nodeTypes, name) ? nodeTypes[name]! : null;
}

// --- internal ---

/** ComfyUI's names of the samplers that are here, in its order. */
const comfySamplers: readonly string[] = (
  "euler euler_cfg_pp euler_ancestral euler_ancestral_cfg_pp heun heunpp2 dpm_2 dpm_2_ancestral " +
  "lms dpmpp_2s_ancestral dpmpp_sde dpmpp_sde_gpu dpmpp_2m dpmpp_2m_sde dpmpp_2m_sde_gpu " +
  "dpmpp_2m_sde_heun dpmpp_2m_sde_heun_gpu dpmpp_3m_sde dpmpp_3m_sde_gpu ddpm lcm ipndm ipndm_v " +
  "deis res_multistep res_multistep_ancestral gradient_estimation er_sde seeds_2 ddim uni_pc " +
  "uni_pc_bh2"
)
  .split(" ")
  .filter((name) => samplerNamed(name) !== null);

/** The same of its schedulers. */
const comfySchedulers: readonly string[] =
  "simple sgm_uniform karras exponential ddim_uniform beta normal linear_quadratic kl_optimal"
    .split(" ")
    .filter((name) => sigmasNamed(name) !== null);

const { width, height, stepCount, guidanceScale, imageCount } = settings;
/** The largest number that a double holds below 2^63. */
const seedMax = 2 ** 63 - 1024;
/** Python's sys.maxsize, likewise. */
const wholeMax = seedMax;

const text: InputType = { type: "STRING", options: { multiline: true, dynamicPrompts: true } };

const strength = number(1, -100, 100);

const seed: InputType = {
  type: "INT",
  options: { default: 0, min: 0, max: seedMax, control_after_generate: true },
};
const sampling = {
  steps: whole(20, stepCount.min, stepCount.max),
  cfg: {
    type: "FLOAT",
    options: { default: 8, min: guidanceScale.min, max: guidanceScale.max, step: 0.1, round: 0.01 },
  },
  sampler_name: choice(...comfySamplers),
  scheduler: choice(...comfySchedulers),
  positive: conditioning,
  negative: conditioning,
  latent_image: latent,
};
const loraName = listed("loras");
const side = (of: number) => whole(of, 0, sideMax);

const primitive = (title: string, type: ValueType, options: InputType["options"]): NodeType => ({
  ...{ title, category: "utils/primitive" },
  inputs: { value: { type, ...(options !== undefined && { options }) } },
  outputs: [type],
});

const nodeTypes: Readonly<Record<string, NodeType>> = {
  CheckpointLoaderSimple: {
    ...{ title: "Load Checkpoint", category: "loaders" },
    description:
      "Loads a diffusion model checkpoint, diffusion models are used to denoise latents.",
    inputs: { ckpt_name: listed("models") },
    outputs: ["MODEL", "CLIP", "VAE"],
  },
  VAELoader: {
    ...{ title: "Load VAE", category: "loaders" },
    inputs: { vae_name: listed("vaes") },
    outputs: ["VAE"],
  },
  LoraLoader: {
    ...{ title: "Load LoRA", category: "loaders" },
    description: "LoRAs are used to modify diffusion and CLIP models.",
    inputs: {
      ...{ model, clip, lora_name: loraName },
      ...{ strength_model: strength, strength_clip: strength },
    },
    outputs: ["MODEL", "CLIP"],
  },
  LoraLoaderModelOnly: {
    ...{ title: "LoraLoaderModelOnly", category: "loaders" },
    inputs: { model, lora_name: loraName, strength_model: strength },
    outputs: ["MODEL"],
  },
  CLIPSetLastLayer: {
    ...{ title: "CLIP Set Last Layer", category: "conditioning" },
    inputs: { clip, stop_at_clip_layer: whole(-1, -settings.clipSkip.max, -1, 1) },
    outputs: ["CLIP"],
  },
  CLIPTextEncode: {
    ...{ title: "CLIP Text Encode (Prompt)", category: "conditioning" },
    description: "Encodes a text prompt using a CLIP model.",
    inputs: { text, clip },
    outputs: ["CONDITIONING"],
  },
  CLIPTextEncodeSDXL: {
    ...{ title: "CLIPTextEncodeSDXL", category: "advanced/conditioning" },
    inputs: {
      ...{ clip, width: side(1024), height: side(1024), crop_w: side(0), crop_h: side(0) },
      ...{ target_width: side(1024), target_height: side(1024), text_g: text, text_l: text },
    },
    outputs: ["CONDITIONING"],
  },
  CLIPTextEncodeSDXLRefiner: {
    ...{ title: "CLIPTextEncodeSDXLRefiner", category: "advanced/conditioning" },
    inputs: { ascore: number(6, 0, 1000), width: side(1024), height: side(1024), text, clip },
    outputs: ["CONDITIONING"],
  },
  ConditioningZeroOut: {
    ...{ title: "ConditioningZeroOut", category: "advanced/conditioning" },
    inputs: { conditioning },
    outputs: ["CONDITIONING"],
  },
  EmptyLatentImage: {
    ...{ title: "Empty Latent Image", category: "latent" },
    description: "Create a new batch of empty latent images to be denoised via sampling.",
    inputs: {
      width: whole(512, 16, width.max, 8),
      height: whole(512, 16, height.max, 8),
      batch_size: whole(1, 1, imageCount.max),
    },
    outputs: ["LATENT"],
  },
  KSampler: {
    ...{ title: "KSampler", category: "sampling" },
    description:
      "Uses the provided model, positive and negative conditioning to denoise the latent image.",
    inputs: {
      ...{ model, seed, ...sampling },
      denoise: number(1, 0, 1),
    },
    outputs: ["LATENT"],
  },
  KSamplerAdvanced: {
    ...{ title: "KSampler (Advanced)", category: "sampling" },
    inputs: {
      ...{ model, add_noise: choice("enable", "disable"), noise_seed: seed, ...sampling },
      ...{ start_at_step: whole(0, 0, 10_000), end_at_step: whole(10_000, 0, 10_000) },
      return_with_leftover_noise: choice("disable", "enable"),
    },
    outputs: ["LATENT"],
  },
  ...imageNodeTypes,
  VAEDecode: {
    ...{ title: "VAE Decode", category: "latent" },
    description: "Decodes latent images back into pixel space images.",
    inputs: { samples: latent, vae },
    outputs: ["IMAGE"],
  },
  SaveImage: {
    ...{ title: "Save Image", category: "image" },
    description: "Saves the input images to your ComfyUI output directory.",
    inputs: { images: image, filename_prefix: { type: "STRING", options: { default: "ComfyUI" } } },
    outputs: [],
    isOutput: true,
  },
  PreviewImage: {
    ...{ title: "Preview Image", category: "image" },
    description: "Saves the input images to your ComfyUI output directory.",
    inputs: { images: image },
    outputs: [],
    isOutput: true,
  },
  PrimitiveString: primitive("String", "STRING", undefined),
  PrimitiveStringMultiline: primitive("String (Multiline)", "STRING", { multiline: true }),
  PrimitiveInt: primitive("Int", "INT", { min: -wholeMax, max: wholeMax }),
  PrimitiveFloat: primitive("Float", "FLOAT", { min: -wholeMax, max: wholeMax }),
};

/** All of them, by name. */
export const nodeTypeNames: readonly string[] = Object.keys(nodeTypes);
