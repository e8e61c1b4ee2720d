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
import { kindOf } from "./kind.ts";
import type { ComponentWeights, Model } from "./model.ts";
import { findWeightFiles, type WeightStem } from "./weight-files.ts";

/**
 * Opens the diffusers folder at `path`. Throws "bad-model" or "bad-weights" with the file and the
 * key that is wrong, missing or not supported.
 */
export async function openModelFolder(path: string): Promise<Model> {
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
  checkTogether(root, { clip, clip2, unet, vae, tokenizer, tokenizer2 });

  const vaeFactor = 2 ** (vae.blockOutChannels.length - 1);
  const sizeMultiple = vaeFactor * 2 ** (unet.blockOutChannels.length - 1);
  // A default size that the model cannot generate would be refused at once.
  const pixels = Math.ceil((unet.sampleSize * vaeFactor) / sizeMultiple) * sizeMultiple;
  return {
    path: root,
    name: basename(root),
    kind: kindOf({ unet, clip2, vae }),
    clip,
    clip2,
    unet,
    vae,
    scheduler,
    forceZerosForEmptyPrompt: index.isOn("force_zeros_for_empty_prompt", true),
    tokenizer,
    tokenizer2,
    weights: {
      textEncoder: clip
        ? await weightsIn(join(root, "text_encoder"), "model")
        : { files: [], names: null },
      textEncoder2: await weightsIn(join(root, "text_encoder_2"), "model"),
      unet: await weightsIn(join(root, "unet"), "diffusion_pytorch_model"),
      vae: await weightsIn(join(root, "vae"), "diffusion_pytorch_model"),
    },
    defaults: await readDefaults(root, sizeMultiple),
    vaeFactor,
    sizeMultiple,
    nativeSize: { width: pixels, height: pixels },
  };
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

async function weightsIn(folder: string, stem: WeightStem): Promise<ComponentWeights> {
  return { files: await findWeightFiles(folder, stem), names: null };
}

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
