/**
 * The settings to generate an image again: what it says, with its files looked up on this machine
 * by hash and by name, and with devices that this machine has. Nothing is fetched.
 */
import { basename, dirname } from "node:path";
import { readPromptTags } from "../adapters/prompt-tags.ts";
import { BasedXLError, escaped } from "../errors.ts";
import { HashCache } from "../library/hashes.ts";
import { isPathAlone, Library, modelFolders } from "../library/resolve.ts";
import { findModelFile } from "../models/hub-files.ts";
import { resolveModelPath } from "../models/locate.ts";
import { probeDevice } from "../native/device-info.ts";
import { resources } from "../resources.ts";
import { compatKeys } from "../settings/compat.ts";
import type { EmbeddingChoice } from "../settings/embedding.ts";
import type { LoraChoice } from "../settings/lora.ts";
import { hiresSettings } from "../settings/table/hires.ts";
import { inputSettings } from "../settings/table/input.ts";
import type { SettingKey } from "../settings/table.ts";
import { hiresNames } from "./from-infotext.ts";
import { readRecipe } from "./read.ts";
import type { FileHint, RecalledSettings, Recipe } from "./recipe.ts";

export interface RecalledImage {
  /** What wrote the image. */
  tool: string;
  settings: RecalledSettings;
  /** SHA-256 of the pixels that it started from; null where it is from noise alone. */
  recalledInput: Recipe["input"];
  /** One sentence for each thing that cannot be repeated. */
  warnings: readonly string[];
}

interface RecallOptions {
  modelsDir?: string | readonly string[] | undefined;
  /** Settings that the user gives, which go before the image's. */
  explicit?: ReadonlySet<SettingKey>;
  /** That of `explicit`: the image's own brings its compute type along. */
  device?: string | undefined;
}

/** Throws "io" for what is no image, "bad-option" for an image that says nothing. */
export async function recallImage(
  path: string,
  { modelsDir, explicit = new Set(), device }: RecallOptions = {},
): Promise<RecalledImage> {
  const recipe = readRecipe(path);
  const files = new Files(modelFolders(modelsDir), modelsDir);
  if (!explicit.has("model")) await takeModel(recipe, files);
  else forget(recipe, ["predictionType", "rescaleBetasZeroSnr"]);
  if (!explicit.has("refiner")) await takeRefiner(recipe, files);
  if (!explicit.has("vae")) await takeVae(recipe, files);
  if (!explicit.has("hiresUpscaler")) takeUpscaler(recipe, files);
  if (!explicit.has("image")) withoutInput(recipe);
  if (explicit.has("promptFile")) forget(recipe, ["prompt"]);
  if (!explicit.has("prompt")) await takeTags(recipe, files);
  if (!explicit.has("loras")) await takeLoras(recipe, files);
  if (!explicit.has("embeddings")) await takeEmbeddings(recipe, files);
  if (explicit.has("device") && recipe.settings.device !== device) {
    forget(recipe, ["dtype", "fp16Accumulate"]);
  }
  forgetOverridden(recipe, explicit);
  if (!explicit.has("device")) fitMachine(recipe);
  for (const key of explicit) forget(recipe, [key]);
  const { tool, settings, input: recalledInput, warnings } = recipe;
  return { tool, settings, recalledInput, warnings };
}

// --- internal ---

type Kind = "lora" | "vae" | "embedding" | "upscaler";

/** Of a file's name with its folders. */
const nameMax = 500;

/** Looks files up without fetching any. */
class Files {
  private readonly cache = new HashCache();
  private readonly library: Library;

  constructor(
    private readonly folders: readonly string[],
    private readonly modelsDir: RecallOptions["modelsDir"],
  ) {
    this.library = new Library(folders);
  }

  byHash({ digits }: FileHint): string | null {
    return digits === undefined ? null : this.cache.fileWith(digits);
  }

  /**
   * Whether the file is another one: people rename and replace files. Of a model, whose hash takes
   * its time, this is known only where it was hashed before.
   */
  async isOther(kind: Kind | "checkpoint", path: string, { digits }: FileHint): Promise<boolean> {
    if (digits === undefined) return false;
    try {
      const starts = kind === "lora" ? [await firstTensorByte(path), 0] : [0];
      for (const start of starts) {
        const known = this.cache.known(path, start);
        const hash = kind === "checkpoint" ? known : await this.cache.hashOf(path, { start });
        if (hash === null || hash.startsWith(digits)) return false;
      }
      return true;
    } catch {
      // Whoever opens it says what is wrong with it.
      return false;
    } finally {
      this.cache.save();
    }
  }

  byName(kind: Kind, hint: FileHint): string | null {
    if (hint.name.length > nameMax) return null;
    return caught(() => findModelFile(kind, safeName(hint.name), this.folders));
  }

  async model(hint: FileHint): Promise<string | null> {
    if (hint.name.length > nameMax) return null;
    try {
      const { modelsDir } = this;
      return (await resolveModelPath(safeName(hint.name), { modelsDir })).path;
    } catch (error) {
      if (error instanceof BasedXLError) return null;
      throw error;
    }
  }

  /** The embedding that prompts find without being told. */
  embedding(word: string): string | null {
    return this.library.embeddingsByName().get(word.toLowerCase()) ?? null;
  }
}

function caught<T>(run: () => T): T | null {
  try {
    return run();
  } catch (error) {
    if (error instanceof BasedXLError) return null;
    throw error;
  }
}

/** An image must not say which files outside of the folders of models are opened. */
function safeName(name: string): string {
  const plain = name.trim().replaceAll("\\", "/");
  const isOutside = isPathAlone(plain) || plain.split("/").includes("..") || /^\w:/.test(plain);
  return isOutside ? basename(plain) : plain;
}

/** Sites know LoRAs by the hash of what follows the header. */
async function firstTensorByte(path: string): Promise<number> {
  const length = await Bun.file(path).slice(0, 8).arrayBuffer();
  return 8 + Number(new DataView(length).getBigUint64(0, true));
}

function forget({ settings }: Recipe, keys: readonly SettingKey[]): void {
  for (const key of keys) delete settings[key];
}

function shown({ name, digits }: FileHint): string {
  const hash = digits === undefined ? "" : ` (${digits.slice(0, 10)})`;
  return `${escaped(name === "" ? "without a name" : name, 120)}${hash}`;
}

async function takeModel(recipe: Recipe, files: Files): Promise<void> {
  const { model, settings } = recipe;
  if (model === null) return;
  if (model.isBundled) {
    settings.model = resources.bundledModel();
    return;
  }
  const path = await checkpointOf(model, files);
  if (path !== null) {
    settings.model = path;
    await warnOfOther(recipe, files, "checkpoint", path, model);
    return;
  }
  forget(recipe, ["predictionType", "rescaleBetasZeroSnr"]);
  recipe.warn(`The model ${shown(model)} is not in the folders of models: another one is used.`);
}

async function checkpointOf(
  hint: FileHint & { isFolder?: boolean },
  files: Files,
): Promise<string | null> {
  const hashed = files.byHash(hint);
  // The hash is that of a file in the folder's "unet".
  const known = hashed !== null && hint.isFolder ? dirname(dirname(hashed)) : hashed;
  return known ?? (hint.name === "" ? null : await files.model(hint));
}

/** Without it the model takes all steps. */
async function takeRefiner(recipe: Recipe, files: Files): Promise<void> {
  const { refiner, settings } = recipe;
  if (refiner === null) return;
  const path = await checkpointOf(refiner, files);
  if (path !== null) {
    settings.refiner = path;
    await warnOfOther(recipe, files, "checkpoint", path, refiner);
    return;
  }
  forget(recipe, ["denoisingEnd"]);
  recipe.warn(`The refiner ${shown(refiner)} is not in the folders of models: it is left out.`);
}

async function warnOfOther(
  recipe: Recipe,
  files: Files,
  kind: Kind | "checkpoint",
  path: string,
  hint: FileHint,
): Promise<void> {
  if (!(await files.isOther(kind, path, hint))) return;
  recipe.warn(`${escaped(path, 200)} has another hash than ${shown(hint)}: images will differ.`);
}

async function takeVae(recipe: Recipe, files: Files): Promise<void> {
  const { vae, settings } = recipe;
  if (vae === null) return;
  const path = files.byHash(vae) ?? files.byName("vae", vae);
  if (path !== null) {
    settings.vae = path;
    await warnOfOther(recipe, files, "vae", path, vae);
  } else recipe.warn(`The VAE ${shown(vae)} is not in the folders of models: the model's is used.`);
}

/** Without it there is one pass. */
function takeUpscaler(recipe: Recipe, files: Files): void {
  const { hiresUpscaler: name } = recipe.settings;
  if (name === undefined || Object.hasOwn(hiresNames, name)) return;
  const path = files.byName("upscaler", { name });
  if (path !== null) {
    recipe.settings.hiresUpscaler = path;
    return;
  }
  forget(recipe, Object.keys(hiresSettings) as SettingKey[]);
  const named = shown({ name });
  recipe.warn(`The upscaler ${named} is not in the folders of models: there is no second pass.`);
}

const loraTag = /(?<!\\)<(?:lora|lyco):[^<>]*>/gi;

/** Tags whose LoRA is not found by its name are taken out of the prompt. */
async function takeTags(recipe: Recipe, files: Files): Promise<void> {
  const { settings, loraDigits } = recipe;
  const { prompt } = settings;
  if (prompt === undefined) return;
  const found: LoraChoice[] = [];
  const tags = new Map<string, string>();
  for (const [tag] of prompt.matchAll(loraTag)) tags.set(tag, "");
  for (const tag of tags.keys()) {
    const [choice] = caught(() => readPromptTags(tag, "the image's prompt").loras) ?? [];
    if (choice === undefined) {
      recipe.warn(`The tag ${escaped(tag, 100)} cannot be read, and is left out.`);
      continue;
    }
    const hint = { name: choice.file, digits: loraDigits.get(choice.file) };
    const named = safeName(hint.name) === hint.name ? files.byName("lora", hint) : null;
    const isOther = named !== null && (await files.isOther("lora", named, hint));
    const path = named === null || isOther ? files.byHash(hint) : null;
    if (path !== null) found.push({ ...choice, file: path });
    else if (named === null) {
      recipe.warn(`The LoRA ${shown(hint)} is not in the folders of models: it is left out.`);
    } else {
      if (isOther) await warnOfOther(recipe, files, "lora", named, hint);
      tags.set(tag, tag);
    }
  }
  settings.prompt = prompt.replace(loraTag, (tag) => tags.get(tag) ?? "");
  if (found.length > 0) settings.loras = found;
}

async function takeLoras(recipe: Recipe, files: Files): Promise<void> {
  const choices: LoraChoice[] = [];
  for (const lora of recipe.loras) {
    const path = files.byHash(lora) ?? files.byName("lora", lora);
    const { scale, textScale } = lora;
    if (path === null) {
      recipe.warn(`The LoRA ${shown(lora)} is not in the folders of models: it is left out.`);
      continue;
    }
    await warnOfOther(recipe, files, "lora", path, lora);
    choices.push({ file: path, scale, textScale });
  }
  const { loras = [] } = recipe.settings;
  if (choices.length + loras.length > 0) recipe.settings.loras = [...loras, ...choices];
}

async function takeEmbeddings(recipe: Recipe, files: Files): Promise<void> {
  const choices: EmbeddingChoice[] = [];
  for (const hint of recipe.embeddings) {
    const { word } = hint;
    const own = files.embedding(word);
    const isOther = own !== null && (await files.isOther("embedding", own, hint));
    const hashed = own === null || isOther ? files.byHash(hint) : null;
    const path = hashed ?? own ?? files.byName("embedding", hint);
    if (path === null) {
      recipe.warn(
        `The embedding ${shown(hint)} is not in the folders of models: its name is text.`,
      );
      continue;
    }
    if (path !== own) choices.push({ file: path, name: word });
    await warnOfOther(recipe, files, "embedding", path, hint);
  }
  if (choices.length > 0) recipe.settings.embeddings = choices;
}

/** An image has the hash of what it started from, and not its pixels. */
function withoutInput(recipe: Recipe): void {
  forget(recipe, Object.keys(inputSettings) as SettingKey[]);
  if (recipe.input === null) return;
  const mask = recipe.input.mask === undefined ? "" : " and its mask by --mask";
  recipe.warn(
    `The image started from another, which it does not hold: give that by --image${mask}. ` +
      "Without it this one starts from noise.",
  );
}

/** Settings of the image that an explicit one would contradict. */
function forgetOverridden(recipe: Recipe, explicit: ReadonlySet<SettingKey>): void {
  const { settings } = recipe;
  if (explicit.has("recipe")) {
    forget(recipe, ["stepCount", "scheduler", "guidanceScale", "warmupSteps", "syncMode", "eta"]);
    forget(recipe, ["sigmas", "timesteps", "timestepSpacing", "useKarrasSigmas"]);
  }
  if (explicit.has("compat")) forget(recipe, compatKeys);
  if (explicit.has("compat") || explicit.has("noiseOrder")) {
    forget(recipe, ["noiseBatch", "noiseIndex"]);
  }
  if (explicit.has("scheduler")) {
    forget(recipe, ["sigmas", "timesteps", "useKarrasSigmas", "eta", "noiseSampler"]);
  }
  if (explicit.has("sigmas")) forget(recipe, ["useKarrasSigmas", "timesteps"]);
  if (explicit.has("useKarrasSigmas")) forget(recipe, ["sigmas", "timesteps"]);
  if (explicit.has("timesteps")) {
    forget(recipe, ["sigmas", "useKarrasSigmas", "stepCount", "warmupSteps"]);
  }
  if (explicit.has("timestepSpacing")) forget(recipe, ["timesteps"]);
  if (explicit.has("stepCount")) {
    forget(recipe, ["warmupSteps", "timesteps"]);
    if (typeof settings.sigmas === "object") forget(recipe, ["sigmas"]);
  }
  if (explicit.has("dtype") && settings.fp16Accumulate) forget(recipe, ["fp16Accumulate"]);
  if (explicit.has("rankCount")) forget(recipe, ["vaeTiling", "balance"]);
}

/** GPUs that are not there do not compute the image. */
function fitMachine(recipe: Recipe): void {
  const { settings, hardware } = recipe;
  if (hardware === null) return;
  const { gpuCount, gpuName, instructionSet, cudaKernels } = probeDevice();
  const { device, rankCount = 1 } = settings;
  const hasGpus = gpuCount > 0 && cudaKernels !== "";
  if (device === "cuda" && !hasGpus) {
    forget(recipe, ["device", "dtype", "fp16Accumulate"]);
    recipe.warn("The image was generated on a GPU, and none is found: the CPU's will differ.");
    return;
  }
  if (device === "cuda" && rankCount > gpuCount && !settings.shareGpu) {
    settings.shareGpu = true;
  }
  const here = device === "cuda" ? gpuName : instructionSet;
  if (hardware !== here) {
    recipe.warn(`The image was computed by ${escaped(hardware, 60)}: ${here} may round otherwise.`);
  }
}
