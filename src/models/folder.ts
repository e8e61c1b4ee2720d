/**
 * Opens a diffusers folder: every config read and checked against the others, both tokenizers
 * ready, weight files found. Nothing is loaded; a folder that opens can still have bad weights in
 * its files.
 */
import { statSync } from "node:fs";
import { basename, join } from "node:path";
import { BasedXLError } from "../errors.ts";
import { absolutePath } from "../paths.ts";
import { loadTokenizer } from "../prompt/tokenizer.ts";
import { assembleModel, type ModelParts, sizesOf } from "./assemble.ts";
import {
  parseClipConfig,
  parseSchedulerConfig,
  parseUnetConfig,
  parseVaeConfig,
} from "./config.ts";
import { ConfigReader, text, word } from "./config-reader.ts";
import { checkTogether } from "./consistency.ts";
import { readDefaults } from "./defaults.ts";
import { readJsonFile } from "./json.ts";
import type { Component, ComponentWeights, Model } from "./model.ts";
import { findWeightFiles, type WeightStem } from "./weight-files.ts";

/**
 * Opens the diffusers folder at `path`. Throws "bad-model" or "bad-weights" with the file and the
 * key that is wrong, missing or not supported.
 */
export async function openModelFolder(path: string): Promise<Model> {
  const folder = await readModelFolder(path);
  const { sizeMultiple } = sizesOf(folder);
  return assembleModel({
    ...folder,
    weights: await folderWeights(folder),
    warnings: [],
    defaults: await readDefaults(folder.path, sizeMultiple),
  });
}

/** What a diffusers folder says without its weights. */
export type FolderConfigs = Omit<ModelParts, "weights" | "warnings" | "defaults">;

/** Reads and checks all of the folder at `path` but the weights, which need not be there. */
export async function readModelFolder(path: string): Promise<FolderConfigs> {
  const root = absolutePath(path);
  checkIsFolder(root);
  const index = await readIndex(root);
  const config = async (component: string, file = "config.json") => {
    const configPath = join(root, component, file);
    return [configPath, await readJsonFile(configPath)] as const;
  };
  const hasBoth = !index.isEmptyComponent("text_encoder");
  const clip = hasBoth ? parseClipConfig(...(await config("text_encoder")), false) : null;
  const clip2 = parseClipConfig(...(await config("text_encoder_2")), true);
  const unet = parseUnetConfig(...(await config("unet")));
  const vae = parseVaeConfig(...(await config("vae")));
  const scheduler = parseSchedulerConfig(
    ...(await config("scheduler", "scheduler_config.json")),
    index.componentClass("scheduler", "diffusers"),
  );
  const tokenizer = clip && (await loadTokenizer(join(root, "tokenizer"), clip.eosTokenId));
  const tokenizer2 = await loadTokenizer(join(root, "tokenizer_2"), clip2.eosTokenId);
  const places = {
    unet: join(root, "unet", "config.json"),
    tokenizer: join(root, "tokenizer"),
    tokenizer2: join(root, "tokenizer_2"),
  };
  checkTogether(places, { clip, clip2, unet, vae, tokenizer, tokenizer2 });
  const forceZerosForEmptyPrompt = index.isOn("force_zeros_for_empty_prompt", true);
  const networks = { clip, clip2, unet, vae, scheduler, forceZerosForEmptyPrompt };
  return { path: root, name: basename(root), ...networks, tokenizer, tokenizer2 };
}

/** The weights of the networks that `wanted` names, by default of all. */
export async function folderWeights<Wanted extends Component = Component>(
  { path, clip }: Pick<FolderConfigs, "path" | "clip">,
  wanted: readonly Wanted[] = Object.keys(weightPlaces) as Wanted[],
): Promise<Record<Wanted, ComponentWeights>> {
  const found: Partial<Record<Component, ComponentWeights>> = {};
  for (const component of wanted) {
    const [folder, stem] = weightPlaces[component];
    const isAbsent = component === "textEncoder" && clip === null;
    const files = isAbsent ? [] : await findWeightFiles(join(path, folder), stem);
    found[component] = { files, names: null };
  }
  return found as Record<Wanted, ComponentWeights>;
}

// --- internal ---

/** A library and its classes: a component's comes from model_index.json, as in diffusers. */
const componentClasses: Record<string, readonly [string, ...string[]]> = {
  text_encoder: ["transformers", "CLIPTextModel", "CLIPTextModelWithProjection"],
  text_encoder_2: ["transformers", "CLIPTextModelWithProjection"],
  tokenizer: ["transformers", "CLIPTokenizer", "CLIPTokenizerFast"],
  tokenizer_2: ["transformers", "CLIPTokenizer", "CLIPTokenizerFast"],
  unet: ["diffusers", "UNet2DConditionModel"],
  vae: ["diffusers", "AutoencoderKL"],
};

const weightPlaces: Record<Component, [folder: string, stem: WeightStem]> = {
  textEncoder: ["text_encoder", "model"],
  textEncoder2: ["text_encoder_2", "model"],
  unet: ["unet", "diffusion_pytorch_model"],
  vae: ["vae", "diffusion_pytorch_model"],
};

function checkIsFolder(root: string): void {
  const stat = statSync(root, { throwIfNoEntry: false });
  if (stat?.isDirectory()) return;
  const what = stat ? "is a file, not a folder" : "does not exist";
  throw new BasedXLError(
    "bad-model",
    `The model ${root} ${what}; name a diffusers folder, with model_index.json in it.`,
  );
}

async function readIndex(root: string): Promise<ConfigReader> {
  const path = join(root, "model_index.json");
  const index = new ConfigReader(path, await readJsonFile(path));
  const className = index.required("_class_name", text);
  if (!/^StableDiffusionXL(Img2Img|Inpaint)?Pipeline$/.test(className)) {
    index.fail(
      `_class_name is ${word(className)}, which is not supported; StableDiffusionXLPipeline is`,
    );
  }
  // Refiners have only the second text encoder.
  const optional = index.isEmptyComponent("text_encoder") ? ["text_encoder", "tokenizer"] : [];
  const components = [...Object.keys(componentClasses), "scheduler"];
  index.refuseEmptyComponents(components.filter((name) => !optional.includes(name)));
  for (const [component, [library, ...classes]] of Object.entries(componentClasses)) {
    index.componentClass(component, library, classes);
  }
  return index;
}
