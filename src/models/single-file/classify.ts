/**
 * What a safetensors file is, from its keys and shapes: the kind of file, and the model that it is,
 * or is made for. Rules are tried in order; the first that fits counts.
 */
import { type Header, partOf, Shapes } from "./shapes.ts";
import { type UnetShape, unetShapeOf } from "./unet-shape.ts";

type FileKind =
  | "checkpoint"
  | "unet"
  | "lora"
  | "controlnet"
  | "adapter"
  | "vae"
  | "taesd"
  | "text-encoder"
  | "embedding"
  | "upscaler"
  | "unknown";

/** Models that are SDXL, or built as it is. */
type SdxlVariant =
  | "base"
  | "refiner"
  | "inpainting"
  | "SSD-1B"
  | "Vega"
  | "KOALA-700M"
  | "KOALA-1B"
  | "other";

interface Classification {
  kind: FileKind;
  /** The model that it is, or is made for: "SDXL base", "Stable Diffusion 1.5"; "" if unknown. */
  detail: string;
  /** Null where it is no checkpoint and no UNet of the SDXL family. */
  sdxl: SdxlVariant | null;
}

/** Never throws: what fits no rule is "unknown". */
export function classifyHeader(header: Header): Classification {
  const keys = [...header.tensors.keys()];
  for (const { kind, key, detail } of addedParts) {
    if (keys.some((each) => key.test(each))) return other(kind, detail ?? madeFor(header));
  }
  return classifyUnet(header) ?? classifyTransformer(header, keys) ?? classifyRest(header, keys);
}

/** The classification as a noun with its article: "a LoRA for SDXL". */
export function describeFile({ kind, detail }: Classification): string {
  const [alone, withDetail] = nouns[kind];
  return detail === "" ? alone : withDetail.replace("{}", detail);
}

// --- internal ---

const nouns: Record<FileKind, [alone: string, withDetail: string]> = {
  checkpoint: ["a checkpoint of another kind", "a checkpoint of {}"],
  unet: ["a diffusion model alone", "the diffusion model of {} alone"],
  lora: ["a LoRA", "a LoRA for {}"],
  controlnet: ["a ControlNet", "a ControlNet for {}"],
  adapter: ["an adapter", "an adapter ({})"],
  vae: ["a VAE", "a VAE of {}"],
  taesd: ["a TAESD", "a TAESD ({})"],
  "text-encoder": ["a text encoder", "a text encoder ({})"],
  embedding: ["an embedding (textual inversion)", "an embedding (textual inversion) for {}"],
  upscaler: ["an upscaler", "an upscaler ({})"],
  unknown: ["a file of an unknown kind", "a file of an unknown kind ({})"],
};

function other(kind: FileKind, detail: string): Classification {
  return { kind, detail, sdxl: null };
}

/** What changes or guides a model, by keys that no model itself has. */
const addedParts: readonly { kind: FileKind; key: RegExp; detail?: string }[] = [
  { kind: "controlnet", key: /^lora_controlnet$|^control_model\.|(^|\.)input_hint_block\./ },
  { kind: "controlnet", key: /(^|\.)(controlnet_(cond_embedding|down_blocks)|zero_convs)\./ },
  { kind: "controlnet", key: /^control_(all_x_embedder|layers)\./, detail: "Z-Image" },
  { kind: "lora", key: /\.(lora_(down|up|mid|[AB])(\.\w+)?|lora(_linear_layer)?\.\w+)\.weight$/ },
  { kind: "lora", key: /\.(hada_[wt][12](_[ab])?|lokr_[wt][12](_[ab])?|dora_scale|diff(_b)?)$/ },
  { kind: "lora", key: /\.(oft_(blocks|diag)|[ab][12]\.weight|on_input)$|^lora_(unet|te\d?)_/ },
  { kind: "adapter", key: /^(ip_adapter|image_proj)\./, detail: "IP-Adapter" },
  { kind: "adapter", key: /^adapter\.(body|conv_in)\./, detail: "T2I-Adapter" },
  { kind: "adapter", key: /^body\.0\.(in_conv|block1)\./, detail: "T2I-Adapter" },
  { kind: "adapter", key: /\.motion_modules\./, detail: "AnimateDiff" },
];

/** The model that a LoRA or ControlNet is for, by the names and widths of its matrices. */
function madeFor({ tensors }: Header): string {
  for (const [key, { shape }] of tensors) {
    for (const [pattern, model] of foreignParts) if (pattern.test(key)) return model;
    if (/^lora_te[12]_|^text_encoder_2\.|add_embedding|label_emb/.test(key)) return "SDXL";
    if (!/attn2[._]to_k[._](?!.*(up|lora_B))/.test(key) || shape.length < 2) continue;
    const model = modelByContext[shape.at(-1)!];
    if (model !== undefined) return model;
  }
  return "";
}

const foreignParts: readonly [RegExp, string][] = [
  [/(double_blocks|single_blocks|single_transformer_blocks)[._]\d/, "Flux"],
  [/joint_blocks[._]\d|attn[._]add_[qkv]_proj/, "Stable Diffusion 3 or Flux"],
];

/** By the width of the prompt's states that cross-attentions read. */
const modelByContext: Readonly<Record<number, string | undefined>> = {
  768: "Stable Diffusion 1.5",
  1024: "Stable Diffusion 2",
  1280: "the SDXL refiner",
  2048: "SDXL",
};

function classifyUnet(header: Header): Classification | null {
  const unet = partOf(header, "unet");
  if (unet === null) return classifyDiffusersUnet(header);
  const shape = unetShapeOf(unet);
  const kind = hasTextEncoder(header) || partOf(header, "vae") !== null ? "checkpoint" : "unet";
  const isVideo = unet.has("input_blocks.1.0.time_stack.in_layers.2.weight");
  if (isVideo) return other(kind, "Stable Video Diffusion");
  if (shape.additionSize === 0) return other(kind, plainUnet(shape));
  if (shape.contextSize === 1024) return other(kind, "Stable unCLIP 2.1");
  const sdxl = variantOf(shape);
  const detail = sdxl === "other" ? "SDXL's kind in another size" : `${variantNames[sdxl]}`;
  return { kind, detail, sdxl };
}

function plainUnet({ contextSize, inChannels }: UnetShape): string {
  if (contextSize === 1024 && inChannels === 7) return "Stable Diffusion's x4 upscaler";
  const model = contextSize === 0 ? undefined : modelByContext[contextSize];
  if (model === undefined) return "an older latent diffusion model";
  if (contextSize >= 1280) return `${model} that lacks label_emb`;
  return inChannels === 9 ? `${model} inpainting` : model;
}

const variantNames: Record<Exclude<SdxlVariant, "other">, string> = {
  base: "SDXL base",
  refiner: "the SDXL refiner",
  inpainting: "SDXL inpainting",
  "SSD-1B": "SSD-1B",
  Vega: "Vega",
  "KOALA-700M": "KOALA-700M",
  "KOALA-1B": "KOALA-1B",
};

/** Layouts by their down levels' depths and the middle's; see `UnetShape`. */
const layouts: readonly [SdxlVariant, depths: string, midDepth: number][] = [
  ["base", "0 0,2 2,10 10", 10],
  ["refiner", "0 0,4 4,4 4,0 0", 4],
  ["SSD-1B", "0 0,2 2,4 4", -1],
  ["Vega", "0 0,1 1,2 2", -1],
  ["KOALA-700M", "0,2,5", -2],
  ["KOALA-1B", "0,2,6", 6],
];

function variantOf(shape: UnetShape): SdxlVariant {
  const depths = shape.downDepths.map((level) => level.join(" ")).join(",");
  const found = layouts.find((layout) => layout[1] === depths && layout[2] === shape.midDepth);
  const hasWidths = shape.blockOutChannels[0] === (found?.[0] === "refiner" ? 384 : 320);
  if (found === undefined || !hasWidths) return "other";
  if (found[0] === "base" && shape.inChannels === 9) return "inpainting";
  return shape.inChannels === 4 ? found[0] : "other";
}

/** A UNet in diffusers' names: a component of a folder. */
function classifyDiffusersUnet({ tensors }: Header): Classification | null {
  const unet = new Shapes(tensors, "");
  if (!unet.has("conv_in.weight") || !unet.has("time_embedding.linear_1.weight")) return null;
  const context = unet.dimension(
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight",
    -1,
  );
  const isSdxl = unet.has("add_embedding.linear_1.weight");
  const detail = isSdxl ? "an SDXL folder" : (modelByContext[context] ?? "a diffusers folder");
  return other("unet", detail);
}

function hasTextEncoder({ tensors }: Header): boolean {
  for (const key of tensors.keys()) {
    if (/^(conditioner|cond_stage_model|text_encoders|text_encoder|te\d?)\./.test(key)) return true;
  }
  return false;
}

/** Models that are no UNet; keys without the prefix of the diffusion model. */
const transformers: readonly [RegExp, string][] = [
  [/^joint_blocks\.\d+\.context_block\./, "Stable Diffusion 3"],
  [/^(single|double)_stream_modulation/, "Flux 2"],
  [/^distilled_guidance_layer\./, "Chroma"],
  [/^txt_in\.individual_token_refiner\./, "Hunyuan Video"],
  [/^double_blocks\.\d+\.img_attn/, "Flux"],
  [/^single_transformer_blocks\.\d+\./, "Flux"],
  [/^transformer_blocks\.\d+\.img_mlp\./, "Qwen-Image"],
  [/^transformer_blocks\.\d+\.attn\.add_q_proj\./, "Stable Diffusion 3"],
  [/^double_layers\.\d+\.attn\./, "AuraFlow"],
  [/^(adaln_single\.linear|caption_projection|t_block\.1|y_embedder\.y_proj)\b/, "PixArt"],
  [/^clip_txt_mapper\.|^down_blocks\.\d+\.\d+\.channelwise\./, "Stable Cascade"],
  [/^double_stream_blocks\.\d+\.block\./, "HiDream"],
  [/^(cap_embedder|context_refiner)\./, "Lumina or Z-Image"],
  [/^blocks\.\d+\.cross_attn\.(q|kv)_linear\./, "Sana"],
  [/^(head\.modulation|patch_embedding\.weight)$/, "Wan"],
  [/^(patchify_proj\.|.*\.scale_shift_table$)/, "LTX-Video"],
  [/^(mlp_t5\.|blocks\.\d+\.default_modulation)/, "Hunyuan-DiT"],
  [/^blocks\.\d+\.attn\.qkv_x\./, "Mochi"],
  [/^net\.blocks\./, "Cosmos"],
];

function classifyTransformer(header: Header, keys: readonly string[]): Classification | null {
  const prefix = /^(model\.)?diffusion_model\.|^transformer\.(?!resblocks)/;
  const plain = keys.map((key) => key.replace(prefix, ""));
  const found = transformers.find(([pattern]) => plain.some((key) => pattern.test(key)));
  if (found === undefined) return null;
  return other(hasTextEncoder(header) ? "checkpoint" : "unet", found[1]);
}

/** Files of one network or less. */
function classifyRest(header: Header, keys: readonly string[]): Classification {
  const has = (pattern: RegExp) => keys.some((key) => pattern.test(key));
  const vae = partOf(header, "vae");
  if (vae !== null && has(/(^|\.)decoder\.(up\.\d+\.block|up_blocks)\./)) {
    const channels = vae.dimension("decoder.conv_in.weight", 1);
    if (channels === 4) return other("vae", "SDXL or Stable Diffusion 1.5");
    return other("vae", channels === 16 ? "Stable Diffusion 3 or Flux" : "another model");
  }
  const taesd = classifyTaesd(header);
  if (taesd !== null) return taesd;
  if (has(/^(.*\.)?decoder\./) && has(/^(.*\.)?encoder\./)) return other("vae", "another model");
  if (has(/(^|\.)(vision_model|visual)\./)) return other("text-encoder", "CLIP with its images");
  if (has(/(^|\.)encoder\.block\.0\.layer\./)) return other("text-encoder", "T5");
  if (has(/(^|\.)(text_model\.)?encoder\.layers\.0\./)) return other("text-encoder", "CLIP");
  if (has(/(^|\.)transformer\.resblocks\.0\./)) return other("text-encoder", "OpenCLIP");
  if (has(/(^|\.)layers\.0\.self_attn\.q_proj\./)) return other("text-encoder", "a language model");
  if (has(/RRDB_trunk|\.rdb1\.|^(params(_ema)?\.)?model\.1\.sub\./)) {
    return other("upscaler", "ESRGAN");
  }
  if (isCompact(header)) return other("upscaler", "compact");
  return classifyEmbedding(header) ?? other("unknown", "");
}

/** SRVGGNetCompact: a convolution of RGB, the slopes of its channels, a convolution. */
function isCompact({ tensors }: Header): boolean {
  return ["", "params.", "params_ema."].some((prefix) => {
    const shapes = [0, 1, 2].map((i) => tensors.get(`${prefix}body.${i}.weight`)?.shape);
    const [first, slopes, second] = shapes.map((shape) => shape?.length);
    return first === 4 && slopes === 1 && second === 4 && shapes[0]![1] === 3;
  });
}

/** AutoencoderTiny: both halves with diffusers' keys, or one of the author's two files. */
function classifyTaesd({ tensors }: Header): Classification | null {
  const keys = [...tensors.keys()];
  const layer = /^(taesd_)?(decoder|encoder)\.(layers\.)?\d+\.|^\d+\.conv\.\d\.weight$/;
  if (!keys.some((key) => layer.test(key))) return null;
  const first = /^((taesd_)?decoder\.(layers\.0|1)|1)\.weight$/;
  const latent = tensors.get(keys.find((key) => first.test(key)) ?? "")?.shape[1];
  const hasDecoder = latent !== undefined || keys.some((key) => /decoder/.test(key));
  if (!hasDecoder) return other("taesd", "the encoder alone");
  if (latent === 4) return other("taesd", "SDXL or Stable Diffusion 1.5");
  return other("taesd", latent === 16 ? "Stable Diffusion 3 or Flux" : "another model");
}

/** A few vectors as wide as a text encoder. */
function classifyEmbedding({ tensors }: Header): Classification | null {
  if (tensors.has("clip_l") && tensors.has("clip_g")) return other("embedding", "SDXL");
  if (tensors.size === 0 || tensors.size > 4) return null;
  const widths = [...tensors.values()].map(({ shape }) =>
    shape.length === 1 || shape.length === 2 ? shape.at(-1)! : 0,
  );
  if (!widths.every((width) => [768, 1024, 1280].includes(width))) return null;
  if (widths.includes(1280)) return other("embedding", "SDXL");
  return other("embedding", modelByContext[widths[0]!]!);
}
