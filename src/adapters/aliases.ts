/**
 * Every spelling of the model's modules in adapter files. The table is made from the model's own
 * list of modules: a spelling with "_" for "." cannot be read backwards.
 */
import type { ClipConfig, UnetConfig } from "../models/config.ts";
import type { Model } from "../models/model.ts";
import { openClipModuleNames, unetModuleNames } from "../models/names.ts";
import type { AdapterTarget } from "../native/adapters.ts";

/** The networks that adapters change. */
export type AdaptedComponent = Exclude<AdapterTarget["component"], "vae" | "taesd">;

export interface NamedModule {
  component: AdaptedComponent;
  /** Path in diffusers, without ".weight" and ".bias". */
  path: string;
}

interface FoundModule extends NamedModule {
  /** Whose name of the module the file has used; "both" where they are equal. */
  names: "diffusers" | "original" | "both";
}

export class ModuleAliases {
  private readonly dotted: Readonly<Record<AdaptedComponent, Map<string, FoundModule>>>;
  /** With "_" for ".". */
  private readonly joined: Readonly<Record<AdaptedComponent, Map<string, FoundModule>>>;

  constructor(model: Pick<Model, "clip" | "clip2" | "unet">) {
    this.dotted = {
      text_encoder: model.clip ? textSpellings("text_encoder", model.clip) : new Map(),
      text_encoder_2: textSpellings("text_encoder_2", model.clip2),
      unet: unetSpellings(model.unet),
    };
    this.joined = {
      text_encoder: withUnderscores(this.dotted.text_encoder),
      text_encoder_2: withUnderscores(this.dotted.text_encoder_2),
      unet: withUnderscores(this.dotted.unet),
    };
  }

  /** The module that `base` spells; null where the model has none of that name. */
  find(base: string): FoundModule | null {
    for (const [prefix, component, spelling] of prefixes) {
      if (!base.startsWith(prefix)) continue;
      const rest = base.slice(prefix.length).replace(peftPrefix, "");
      const found = this[spelling][component].get(rest);
      if (found !== undefined) return found;
    }
    return null;
  }
}

/** All prefixes of adapter files, with the component that each stands for. */
export const prefixes: readonly (readonly [
  prefix: string,
  component: AdaptedComponent,
  spelling: "dotted" | "joined",
])[] = [
  ["lora_unet_", "unet", "joined"],
  ["lycoris_", "unet", "joined"],
  ["lora_te1_", "text_encoder", "joined"],
  ["lora_te2_", "text_encoder_2", "joined"],
  ["lora_te_", "text_encoder", "joined"],
  ["text_encoder.", "text_encoder", "dotted"],
  ["text_encoder_2.", "text_encoder_2", "dotted"],
  ["text_encoders.clip_l.transformer.", "text_encoder", "dotted"],
  ["text_encoders.clip_g.transformer.", "text_encoder_2", "dotted"],
  ["unet.", "unet", "dotted"],
  ["diffusion_model.", "unet", "dotted"],
  ["model.diffusion_model.", "unet", "dotted"],
  ["", "unet", "dotted"],
];

// --- internal ---

/** PEFT's wrapper around the model that was trained. */
const peftPrefix = /^base_model\.model\./;

function unetSpellings(unet: UnetConfig): Map<string, FoundModule> {
  const spellings = new Map<string, FoundModule>();
  for (const { diffusers: path, original } of unetModuleNames(unet)) {
    const module = { component: "unet", path } as const;
    const isSame = path === original;
    spellings.set(original, { ...module, names: isSame ? "both" : "original" });
    const found: FoundModule = { ...module, names: isSame ? "both" : "diffusers" };
    spellings.set(path, found);
    // The attention processors of old diffusers: attn1.processor.to_q_lora, to_out_lora.
    const ofProcessor = path.replace(/\.to_(q|k|v|out)(?:\.0)?$/, ".processor.to_$1");
    if (ofProcessor !== path) spellings.set(ofProcessor, found);
  }
  return spellings;
}

function textSpellings(
  component: "text_encoder" | "text_encoder_2",
  clip: ClipConfig,
): Map<string, FoundModule> {
  const spellings = new Map<string, FoundModule>();
  for (const { diffusers: path } of openClipModuleNames(clip)) {
    const found: FoundModule = { component, path, names: "both" };
    spellings.set(path, found);
    // Old diffusers: self_attn.to_q_lora.
    const ofProcessor = path.replace(/self_attn\.(q|k|v|out)_proj$/, "self_attn.to_$1");
    if (ofProcessor !== path) spellings.set(ofProcessor, found);
  }
  return spellings;
}

function withUnderscores(spellings: ReadonlyMap<string, FoundModule>): Map<string, FoundModule> {
  return new Map([...spellings].map(([name, found]) => [name.replaceAll(".", "_"), found]));
}
