/**
 * Kinds of models, and the names of folders that programs keep them in.
 */

/** What can be asked for by name. */
export type ModelKind =
  | "checkpoint"
  | "lora"
  | "vae"
  | "taesd"
  | "embedding"
  | "controlnet"
  | "ip-adapter"
  | "clip-vision"
  | "upscaler";

/** What a folder is for: "any" where its name does not say, "other" for what is none of these. */
type FolderKind = ModelKind | "other" | "any";

export interface KindFolder {
  /** Absolute. */
  path: string;
  kind: FolderKind;
  /** Stands before the names of its files: "org/name" of a model in the hub's cache. */
  prefix?: string;
}

/** Takes a sentence about a folder that cannot be used. */
export type Warn = (sentence: string) => void;

/** Kinds of models as lists show them; "unreadable" for those that cannot be read. */
export const listedKinds = [
  "checkpoint",
  "unet",
  "lora",
  "vae",
  "taesd",
  "embedding",
  "controlnet",
  "adapter",
  "upscaler",
  "text-encoder",
  "unknown",
  "unreadable",
] as const;
export type ListedKind = (typeof listedKinds)[number];

/** undefined where the name says nothing. */
export function kindByName(name: string): FolderKind | undefined {
  const bare = name.toLowerCase().replace(/[-_. ]/g, "");
  return Object.hasOwn(kindsByName, bare) ? kindsByName[bare] : undefined;
}

// --- internal ---

/** By the folder's name in lower case, without what separates words. */
const kindsByName: Readonly<Record<string, FolderKind | undefined>> = {
  ...kindOf("checkpoint", "checkpoints stablediffusion diffusionmodels unet diffusers"),
  ...kindOf("lora", "loras lora lycoris locon"),
  ...kindOf("vae", "vae vaes"),
  ...kindOf("taesd", "vaeapprox taesd"),
  ...kindOf("embedding", "embeddings embedding textualinversion"),
  ...kindOf("controlnet", "controlnet controlnets controlnetunion t2iadapter"),
  ...kindOf("ip-adapter", "ipadapter ipadapters"),
  ...kindOf("clip-vision", "clipvision imageencoder"),
  ...kindOf("upscaler", "upscalemodels upscalers esrgan realesrgan swinir dat hat scunet bsrgan"),
  ...kindOf("other", "textencoders textencoder clip stylemodels"),
  ...kindOf("other", "hypernetworks hypernetwork gligen photomaker deepbooru codeformer gfpgan"),
  ...kindOf("other", "configs diffusioninpaint inpaint promptexpansion safetychecker"),
  ...kindOf("other", "ultralytics sams insightface facerestoremodels animatediffmodels"),
};

function kindOf(kind: FolderKind, names: string) {
  return Object.fromEntries(names.split(" ").map((name) => [name, kind]));
}
