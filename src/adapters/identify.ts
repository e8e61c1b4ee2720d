/**
 * What a file is that is no adapter for this model, for one sentence: by its keys and shapes, and
 * for adapters also by what their training program noted in the header.
 */
import { escaped } from "../errors.ts";
import type { SafetensorsHeader } from "../models/safetensors-header.ts";
import { classifyHeader, describeFile } from "../models/single-file/classify.ts";

/** As in "x.safetensors is ${what}, not a LoRA that changes this model; ${advice}." */
interface Identity {
  what: string;
  advice: string | null;
  isLora: boolean;
}

/** The model that an adapter is for, such as "Flux"; null where that is not known. */
export function architectureOf(header: SafetensorsHeader): string | null {
  const keys = [...header.tensors.keys()];
  const byKeys = marks.find(([mark]) => keys.some((key) => mark.test(key)))?.[1];
  if (byKeys !== undefined) return byKeys;
  const { kind, detail } = classifyHeader(header);
  const byShapes = kind === "lora" ? detail : "";
  // The names and widths of SDXL are also those of its smaller kin.
  const byNote = architectureByNote(header.metadata);
  if (byShapes !== "" && byShapes !== "SDXL") return byShapes;
  return byNote ?? (byShapes === "" ? null : byShapes);
}

/** Of any file. */
export function identify(header: SafetensorsHeader): Identity {
  if (header.tensors.size === 0)
    return { what: "a file without tensors", advice: null, isLora: false };
  const found = classifyHeader(header);
  if (found.kind === "lora") {
    const architecture = architectureOf(header) ?? "a model that its header does not name";
    return { what: `a LoRA for ${architecture}`, advice: null, isLora: true };
  }
  return { what: describeFile(found), advice: advices[found.kind] ?? null, isLora: false };
}

// --- internal ---

const advices: Readonly<Record<string, string | undefined>> = {
  checkpoint: "name it with --model",
  vae: "name it with --vae",
  embedding: "name it with --embedding",
  controlnet: "ControlNets are not supported yet",
  adapter: "such adapters are not supported yet",
};

/** Modules that only the adapters of one architecture have; the first match counts. */
const marks: readonly (readonly [RegExp, string])[] = [
  [/motion_module|temporal_transformer/, "AnimateDiff (videos)"],
  [/^lora_prior_(?:unet|te)_/, "Stable Cascade"],
  [/individual_token_refiner|double_blocks[._]\d+[._]img_attn_qkv[._]/, "HunyuanVideo or Flux"],
  [/(?:double|single)(?:_transformer)?_blocks[._]\d|^lora_transformer_single_/, "Flux"],
  [/joint_(?:transformer_)?blocks[._]\d/, "Stable Diffusion 3"],
  [/transformer_blocks[._]\d+[._](?:img|txt)_(?:mlp|mod)[._]/, "Qwen-Image"],
  [/(?:^|[._])blocks[._]\d+[._](?:cross_attn|self_attn)[._]/, "Wan (videos)"],
  [/(?:noise|context)_refiner[._]\d|layers[._]\d+[._]attention[._]/, "Lumina or Z-Image"],
  [/^(?:transformer|diffusion_model)\.transformer_blocks\.\d/, "a transformer, not a UNet"],
];

/** kohya's and Stability's notes in the header. */
function architectureByNote(metadata: ReadonlyMap<string, string>): string | null {
  const note = metadata.get("modelspec.architecture") ?? metadata.get("ss_base_model_version");
  if (note === undefined || note.trim() === "") return null;
  const known = notes.find(([mark]) => mark.test(note.slice(0, noteLengthMax)));
  return known?.[1] ?? escaped(note.replace(/\/lora$/, ""), 60);
}

const noteLengthMax = 200;

const notes: readonly (readonly [RegExp, string])[] = [
  [/refiner/i, "the SDXL refiner"],
  [/ssd[-_]?1b/i, "SSD-1B"],
  [/sdxl|stable-diffusion-xl/i, "SDXL"],
  [/sd3|stable-diffusion-3/i, "Stable Diffusion 3"],
  [/flux/i, "Flux"],
  [/^sd_v2|stable-diffusion-v2/i, "Stable Diffusion 2"],
  [/^sd_v1|stable-diffusion-v1/i, "Stable Diffusion 1.5"],
  [/^wan/i, "Wan (videos)"],
  [/hunyuan/i, "HunyuanVideo"],
  [/qwen/i, "Qwen-Image"],
];
