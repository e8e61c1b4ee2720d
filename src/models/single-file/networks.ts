/**
 * The networks of a single-file checkpoint: the configuration of each, and where the file has its
 * weights. A network that the file lacks is null.
 */
import { BasedXLError } from "../../errors.ts";
import {
  type ClipConfig,
  parseClipConfig,
  parseUnetConfig,
  parseVaeConfig,
  type UnetConfig,
  type VaeConfig,
} from "../config.ts";
import {
  clipModuleNames,
  type ModuleName,
  openClipModuleNames,
  unetModuleNames,
  vaeModuleNames,
} from "../names.ts";
import type { SafetensorsHeader } from "../safetensors-header.ts";
import { clipConfigOf, openClipConfigOf, unetConfigOf, vaeConfigOf } from "./configs.ts";
import { partOf, type Shapes } from "./shapes.ts";
import { type NetworkNames, weightNames } from "./weight-names.ts";

interface Network<Config> extends NetworkNames {
  config: Config;
}

export interface Networks {
  clip: Network<ClipConfig> | null;
  clip2: Network<ClipConfig> | null;
  unet: Network<UnetConfig> | null;
  vae: Network<VaeConfig> | null;
}

/** Configs that take the place of what shapes and constants say. */
interface GivenConfigs {
  clip: ClipConfig | null;
  clip2: ClipConfig;
  unet: UnetConfig;
  vae: VaeConfig;
}

/**
 * The file's networks. Throws "bad-model", naming the file, for sizes that cannot be; the UNet is
 * null also where its layout needs a config.
 */
export function networksOf(header: SafetensorsHeader, given: GivenConfigs | null): Networks {
  const clip = partOf(header, "clip");
  const unet = partOf(header, "unet");
  const vae = partOf(header, "vae");
  return {
    clip: clip && clipNetwork(header.path, clip, given?.clip ?? null),
    clip2: secondClip(header, given?.clip2 ?? null),
    unet: unet && unetNetwork(header.path, unet, given?.unet ?? null),
    vae: vae && vaeNetwork(header.path, vae, given?.vae ?? null),
  };
}

/** The autoencoder below `vae`, in LDM's names or in diffusers'. */
export function vaeNames(vae: Shapes, config: VaeConfig): NetworkNames {
  const names = vaeModuleNames(config);
  return weightNames(vae, isLdm(vae) ? names : names.map(inDiffusersNames));
}

// --- internal ---

/** Tensors whose shapes say how a network is configured. */
const sizeKeys = {
  unet: ["input_blocks.1.0.in_layers.2.weight", "out.2.weight", "label_emb.0.0.weight"],
  clip: [
    "text_model.embeddings.position_embedding.weight",
    "text_model.encoder.layers.0.layer_norm1.weight",
    "text_model.encoder.layers.0.mlp.fc1.weight",
  ],
  openClip: [
    "positional_embedding",
    "transformer.resblocks.0.ln_1.weight",
    "transformer.resblocks.0.mlp.c_fc.weight",
  ],
  vae: ["encoder.conv_in.weight", "encoder.down.0.block.0.conv1.weight", "decoder.conv_out.weight"],
};

function checkSizeKeys(path: string, part: Shapes, keys: readonly string[]): void {
  const missing = keys.find((key) => !part.has(key));
  if (missing === undefined) return;
  const what = `lacks the tensor ${part.prefix}${missing}, which shows a size of the model`;
  throw new BasedXLError("bad-model", `${path} ${what}.`);
}

function clipNetwork(path: string, clip: Shapes, given: ClipConfig | null): Network<ClipConfig> {
  if (given === null) checkSizeKeys(path, clip, sizeKeys.clip);
  const config = given ?? parseClipConfig(path, clipConfigOf(clip, false), false);
  return { config, ...weightNames(clip, clipModuleNames(config)) };
}

/** In OpenCLIP's names, or in transformers'. */
function secondClip(
  header: SafetensorsHeader,
  given: ClipConfig | null,
): Network<ClipConfig> | null {
  const { path } = header;
  const open = partOf(header, "openClip");
  if (open !== null) {
    if (given === null) checkSizeKeys(path, open, sizeKeys.openClip);
    const config = given ?? parseClipConfig(path, openClipConfigOf(open), true);
    return { config, ...weightNames(open, openClipModules(open, config)) };
  }
  const clip = partOf(header, "clip2");
  if (clip === null) return null;
  if (given === null) checkSizeKeys(path, clip, sizeKeys.clip);
  const config = given ?? parseClipConfig(path, clipConfigOf(clip, true), true);
  return { config, ...weightNames(clip, clipModuleNames(config)) };
}

/** The projection stands alone and transposed, or as a linear layer under either of two keys. */
function openClipModules(open: Shapes, config: ClipConfig): ModuleName[] {
  const name = "text_projection";
  const linear = [name, `${name}.weight`].find((each) => open.has(`${each}.weight`));
  return openClipModuleNames(config).map((module) =>
    module.diffusers === name && linear !== undefined
      ? { diffusers: name, original: linear }
      : module,
  );
}

function unetNetwork(
  path: string,
  unet: Shapes,
  given: UnetConfig | null,
): Network<UnetConfig> | null {
  if (given === null) checkSizeKeys(path, unet, sizeKeys.unet);
  const json = given === null ? unetConfigOf(unet) : null;
  const config = given ?? (json && parseUnetConfig(path, json));
  return config && { config, ...weightNames(unet, unetModuleNames(config)) };
}

function vaeNetwork(path: string, vae: Shapes, given: VaeConfig | null): Network<VaeConfig> | null {
  // In diffusers' names the layout is not read: its config is beside the file.
  if (given === null && !isLdm(vae)) return null;
  if (given === null) checkSizeKeys(path, vae, sizeKeys.vae);
  const config = given ?? parseVaeConfig(path, vaeConfigOf(vae));
  return { config, ...vaeNames(vae, config) };
}

function isLdm(vae: Shapes): boolean {
  return vae.has("decoder.mid.block_1.conv1.weight");
}

function inDiffusersNames({ diffusers }: ModuleName): ModuleName {
  return { diffusers, original: diffusers };
}
