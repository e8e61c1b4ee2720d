/**
 * Another VAE than the model's own (`--vae`): a folder in diffusers' layout, a whole model's
 * folder, or a safetensors file with the keys of diffusers or of LDM, also inside a checkpoint.
 */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { BasedXLError, badWeights, escaped } from "../errors.ts";
import { isFolder } from "../paths.ts";
import { parseVaeConfig, type VaeConfig } from "./config.ts";
import { readJsonFile } from "./json.ts";
import type { ComponentWeights, Model } from "./model.ts";
import { readSafetensorsHeader, type SafetensorsHeader } from "./safetensors-header.ts";
import { classifyHeader, describeFile } from "./single-file/classify.ts";
import { vaeNames } from "./single-file/networks.ts";
import { partOf, type Shapes } from "./single-file/shapes.ts";
import { findWeightFiles } from "./weight-files.ts";

export interface VaeChoice {
  /** Absolute, of the folder or file. */
  path: string;
  config: VaeConfig;
  weights: ComponentWeights;
  /** A sentence on what was read and assumed. */
  note: string;
}

/**
 * Opens the VAE at the absolute `path` for a model with the VAE `own`, whose config counts where
 * the file has none beside it. Rejects with "bad-model" or "bad-weights" for what is no VAE for
 * the model.
 */
export async function openVae(path: string, own: VaeConfig): Promise<VaeChoice> {
  const choice = isFolder(path) ? await openFolder(path) : await openFile(path, own);
  checkFits(path, choice.config, own);
  return choice;
}

/** That of another model, which is open; throws likewise. */
export function vaeOfModel({ path, vae: config, weights }: Model, own: VaeConfig): VaeChoice {
  checkFits(path, config, own);
  const note = `VAE: that of ${path}, scaling factor ${config.scalingFactor}.`;
  return { path, config, weights: weights.vae, note };
}

/** The model with that VAE in the place of its own. */
export function withVae(model: Model, { config, weights }: VaeChoice): Model {
  return { ...model, vae: config, weights: { ...model.weights, vae: weights } };
}

// --- internal ---

async function openFolder(path: string): Promise<VaeChoice> {
  const folder = [path, join(path, "vae")].find((each) => existsSync(join(each, "config.json")));
  if (folder === undefined) {
    throw new BasedXLError(
      "bad-model",
      `The folder ${escaped(path, 300)} has no VAE: neither config.json nor vae/config.json.`,
    );
  }
  const config = await readConfig(join(folder, "config.json"));
  const files = await findWeightFiles(folder, "diffusion_pytorch_model");
  const note = `VAE: ${folder}, scaling factor ${config.scalingFactor}.`;
  return { path: folder, config, weights: { files, names: null }, note };
}

async function openFile(path: string, own: VaeConfig): Promise<VaeChoice> {
  const header = readSafetensorsHeader(path);
  const part = partOf(header, "vae");
  if (part === null) refuse(header);
  const isLdm = part.has("decoder.mid.block_1.conv1.weight");
  if (!isLdm && !part.has("decoder.mid_block.resnets.0.conv1.weight")) refuse(header);
  const beside = join(dirname(path), "config.json");
  const hasConfig = !isLdm && part.prefix === "" && isVaeFile(path) && existsSync(beside);
  const config = hasConfig ? await readConfig(beside) : own;
  checkShapes(header, part, config);
  const keys = isLdm ? "original keys" : "diffusers' keys";
  const assumed = hasConfig
    ? ""
    : "; that is the model's own, since a file does not have it: a VAE of Stable Diffusion 1.5 " +
      "has the same shapes, and would be for 0.18215";
  return {
    path,
    config,
    weights: { files: [path], names: namesIn(part, config, isLdm) },
    note: `VAE: ${path} (${keys}), scaling factor ${config.scalingFactor}${assumed}.`,
  };
}

/** A folder's own file: config.json beside another one may be of anything. */
function isVaeFile(path: string): boolean {
  return /(^|\/)diffusion_pytorch_model(\.fp16)?\.safetensors$/.test(path);
}

async function readConfig(path: string): Promise<VaeConfig> {
  return parseVaeConfig(path, await readJsonFile(path));
}

/** null for diffusers' keys without a prefix: the library knows their older forms too. */
function namesIn(part: Shapes, config: VaeConfig, isLdm: boolean): ComponentWeights["names"] {
  return !isLdm && part.prefix === "" ? null : vaeNames(part, config).names;
}

/** A few tensors that tell other architectures; the library checks every one. */
function checkShapes(header: SafetensorsHeader, part: Shapes, config: VaeConfig): void {
  const latent = part.dimension("decoder.conv_in.weight", 1);
  const deepest = part.dimension("decoder.conv_in.weight", 0);
  const first = part.dimension("encoder.conv_in.weight", 0);
  if (latent !== config.latentChannels) {
    const what = describeFile(classifyHeader(header));
    fail(
      header.path,
      `is ${what}: it decodes latents of ${latent} channels, but the model makes ` +
        `${config.latentChannels}`,
    );
  }
  const widths = [config.blockOutChannels[0]!, config.blockOutChannels.at(-1)!];
  if (first === widths[0] && deepest === widths[1]) return;
  fail(
    header.path,
    `has a VAE of ${first} to ${deepest} channels, but the config has ${widths.join(" to ")}`,
  );
}

function checkFits(path: string, config: VaeConfig, own: VaeConfig): void {
  if (config.latentChannels !== own.latentChannels) {
    fail(
      path,
      `is a VAE for latents of ${config.latentChannels} channels, but the model makes ` +
        `${own.latentChannels}`,
    );
  }
  const [factor, ownFactor] = [config, own].map((vae) => 2 ** (vae.blockOutChannels.length - 1));
  if (factor === ownFactor) return;
  fail(path, `makes ${factor} pixels of a latent, but the model counts on ${ownFactor}`);
}

function refuse(header: SafetensorsHeader): never {
  fail(header.path, `is ${describeFile(classifyHeader(header))}, not a VAE for the model`);
}

function fail(path: string, what: string): never {
  throw badWeights(path, what);
}
