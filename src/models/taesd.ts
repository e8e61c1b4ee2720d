/**
 * The decoder of AutoencoderTiny (TAESD), which previews are made with: diffusers' folder, its file
 * (`decoder.layers.N`), or the author's decoder file, whose N is one more, also with the prefixes
 * of programs that keep it in checkpoints. Levels and widths follow from the shapes.
 */
import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { badWeights } from "../errors.ts";
import { isFolder } from "../paths.ts";
import { ConfigReader } from "./config-reader.ts";
import { readJsonFile } from "./json.ts";
import type { ComponentWeights, Model, Taesd, TaesdConfig, WeightSource } from "./model.ts";
import { readSafetensorsHeader, type SafetensorsHeader } from "./safetensors-header.ts";
import { classifyHeader, describeFile } from "./single-file/classify.ts";
import { Shapes } from "./single-file/shapes.ts";
import { findWeightFiles } from "./weight-files.ts";

/**
 * Opens the TAESD at the absolute `path` for previews of `model`. Rejects with "bad-model" or
 * "bad-weights" for what is none, or does not fit.
 */
export async function openTaesd(
  path: string,
  model: Pick<Model, "vae" | "vaeFactor">,
): Promise<Taesd> {
  const file = isFolder(path) ? await fileIn(path) : path;
  const header = readSafetensorsHeader(file);
  const layers = layersOf(header);
  await checkConfig(file);
  const config = configOf(header, layers);
  const latent = layers.tensors.dimension(layers.key(0, "weight"), 1);
  if (latent !== model.vae.latentChannels) {
    const own = model.vae.latentChannels;
    fail(file, `decodes latents of ${latent} channels, but the model makes ${own}`);
  }
  const factor = 2 ** (config.blockCounts.length - 1);
  if (factor !== model.vaeFactor) {
    const own = model.vaeFactor;
    fail(file, `makes ${factor} pixels of a latent, but the model counts on ${own}`);
  }
  return { path, config, weights: { files: [file], names: namesOf(config, layers) } };
}

/** The model with that decoder for previews. */
export function withTaesd(model: Model, taesd: Taesd): Model {
  return { ...model, taesd };
}

// --- internal ---

/** The decoder's tensors by diffusers' numbers. */
interface Layers {
  tensors: Shapes;
  key(layer: number, rest: string): string;
}

/** Prefixes of keys, and what is added to diffusers' numbers behind each. */
const layouts: readonly [prefix: string, shift: number][] = [
  ["decoder.layers.", 0],
  ["taesd_decoder.", 1],
  ["decoder.", 1],
  ["", 1],
];

function layersOf(header: SafetensorsHeader): Layers {
  const tensors = new Shapes(header.tensors, "");
  for (const [prefix, shift] of layouts) {
    const key = (layer: number, rest: string) => `${prefix}${layer + shift}.${rest}`;
    // The encoder begins with a convolution too, but of RGB and at 0.
    if (tensors.has(key(0, "weight")) && tensors.has(key(2, "conv.0.weight"))) {
      return { tensors, key };
    }
  }
  const kind = classifyHeader(header);
  if (kind.kind !== "taesd") fail(header.path, `is ${describeFile(kind)}, not a TAESD`);
  fail(
    header.path,
    "has no decoder of a TAESD: the author's files have encoder and decoder each by itself, and " +
      "previews need taesdxl_decoder.safetensors",
  );
}

function configOf({ path }: SafetensorsHeader, { tensors, key }: Layers): TaesdConfig {
  const channels = tensors.dimension(key(0, "weight"), 0);
  const blockCounts: number[] = [];
  for (let layer = 2; blockCounts.length < levelCountMax; layer += 2) {
    let count = 0;
    while (tensors.has(key(layer + count, "conv.0.weight"))) count += 1;
    blockCounts.push(count);
    layer += count;
    // The last convolution; between levels there is an upsampling without weights.
    if (tensors.has(key(layer, "weight"))) return { channels, blockCounts };
  }
  fail(path, "has a TAESD without its last layer");
}

/** As `level_count_max` in zig/model/config.zig. */
const levelCountMax = 8;

/** null where the file has diffusers' own keys. */
function namesOf({ blockCounts }: TaesdConfig, { key }: Layers): ComponentWeights["names"] {
  if (key(0, "") === "decoder.layers.0.") return null;
  const names = new Map<string, WeightSource>();
  const add = (layer: number, ...rests: string[]) => {
    for (const rest of rests)
      names.set(`decoder.layers.${layer}.${rest}`, { name: key(layer, rest) });
  };
  add(0, "weight", "bias");
  let layer = 2;
  for (const [level, count] of blockCounts.entries()) {
    if (level > 0) add(layer + 1, "weight");
    layer += level > 0 ? 2 : 0;
    for (const _ of Array(count)) {
      for (const conv of [0, 2, 4]) add(layer, `conv.${conv}.weight`, `conv.${conv}.bias`);
      layer += 1;
    }
  }
  add(layer, "weight", "bias");
  return names;
}

/** The file in a folder of diffusers, or of the author's files. */
async function fileIn(folder: string): Promise<string> {
  const authors = readdirSync(folder).find((name) => /^taesd.*_decoder\.safetensors$/.test(name));
  const own = join(folder, "diffusion_pytorch_model.safetensors");
  if (authors !== undefined && !existsSync(own)) return join(folder, authors);
  const [file] = await findWeightFiles(folder, "diffusion_pytorch_model");
  return file!;
}

/** Refuses what the shapes do not show, in a folder of diffusers. */
async function checkConfig(file: string): Promise<void> {
  const path = join(dirname(file), "config.json");
  if (!/(^|\/)diffusion_pytorch_model\b/.test(file) || !existsSync(path)) return;
  const reader = new ConfigReader(path, await readJsonFile(path));
  reader.refuseUnless("_class_name", ["AutoencoderTiny"]);
  reader.refuseUnless("act_fn", ["relu"]);
  reader.refuseUnless("upsample_fn", ["nearest"]);
  reader.refuseUnless("upsampling_scaling_factor", [2]);
}

function fail(path: string, what: string): never {
  throw badWeights(path, what);
}
