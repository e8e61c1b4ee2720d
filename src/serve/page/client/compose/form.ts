/**
 * The form: the settings that the user gave, by their names in requests. What is not given is not
 * sent, so that the model, the recipe and `compat` decide it. Kept in the browser over reloads.
 */
import { computed, effect, signal } from "@preact/signals";
import { capabilities } from "../server/capabilities.ts";
import type {
  ImageSettings,
  JobRequest,
  ListedModel,
  ListedSetting,
  Settings,
} from "../server/wire.ts";
import { storedText, storeText } from "../ui/storage.ts";
import { hasWeights } from "./weights.ts";

interface Kept {
  settings: Settings;
  model: string | null;
  vae: string | null;
  refiner: string | null;
  keepsSeed: boolean;
}

const storageKey = "basedxl.form";
const kept = readKept();

export const given = signal<Settings>(kept.settings);
/** As the capability document names it; null for the server's own. */
export const modelId = signal<string | null>(kept.model);
/** null for the model's own. */
export const vaeName = signal<string | null>(kept.vae);
/** The model that finishes the images; null for the server's own, or none. */
export const refiner = signal<string | null>(kept.refiner);
/** Whether the next image has the seed of the form, or a random one. */
export const keepsSeed = signal(kept.keepsSeed);

/** The chosen model; null before the capability document is there. */
export const model = computed<ListedModel | null>(() => {
  const models = capabilities.value?.models ?? [];
  const chosen = models.find(({ id }) => id === modelId.value);
  return chosen ?? models.find(({ isDefault }) => isDefault) ?? models[0] ?? null;
});

/** What holds where the form gives nothing: the recipe's values, then the model's. */
export const defaults = computed<Settings>(() => {
  const { recipe } = given.value;
  const preset = capabilities.value?.recipes.find(({ name }) => name === recipe);
  const own = model.value;
  return {
    num_inference_steps: preset?.steps ?? own?.defaults.steps,
    guidance_scale: preset?.guidance ?? own?.defaults.guidanceScale,
    scheduler: preset?.sampler ?? own?.defaults.sampler,
    width: own?.width,
    height: own?.height,
  };
});

/** A setting's row of the capability document. */
export function infoOf(name: string): ListedSetting | undefined {
  return capabilities.value?.settings.find((setting) => setting.name === name);
}

/** The value that holds for a setting, given or not. */
export function settingValue(name: string): unknown {
  return given.value[name] ?? defaults.value[name] ?? infoOf(name)?.default;
}

/** Gives a setting; undefined takes it back. */
export function give(name: string, value: unknown): void {
  const { [name]: _, ...others } = given.value;
  // Those of an image that was restored would not fit fewer steps.
  if (name === "num_inference_steps" && Number(others.warmup_steps) > Number(value)) {
    delete others.warmup_steps;
  }
  given.value = value === undefined ? others : { ...others, [name]: value };
}

/** A recipe decides what follows from it: what was given of that before is taken back. */
export function chooseRecipe(name: string | undefined): void {
  for (const each of [...ofRecipes, "recipe"]) give(each, undefined);
  if (name !== undefined) give("recipe", name);
}

/** Takes over settings of an image but for those that are defaults, and forgets the others. */
export function restore({ request, model, refiner: finishedBy }: ImageSettings): void {
  given.value = withoutDefaults(request);
  keepsSeed.value = request.seed !== undefined;
  const isHere = (name: string) => capabilities.value?.models.some(({ id }) => id === name);
  if (model !== null && isHere(model)) modelId.value = model;
  refiner.value = finishedBy !== null && isHere(finishedBy) ? finishedBy : null;
}

/** The settings that say something: known ones, without those that are defaults. */
export function withoutDefaults(settings: Settings): Settings {
  const told = Object.entries(settings).filter(([name, value]) => {
    const info = infoOf(name);
    return info !== undefined && value !== info.default;
  });
  return Object.fromEntries(told);
}

export function clearForm(): void {
  given.value = {};
  vaeName.value = null;
  refiner.value = null;
  keepsSeed.value = false;
}

/** What is sent to the server. */
export function requestOfForm(): JobRequest {
  const { seed, prompt, negative_prompt: negative, ...others } = given.value;
  const request: Settings = { ...others };
  if (isText(prompt)) request.prompt = prompt;
  if (isText(negative)) request.negative_prompt = negative;
  if (keepsSeed.value && seed !== undefined) request.seed = seed;
  if (readsWeights.value) request.prompt_syntax = "a1111";
  const preview_steps = capabilities.value?.features.previews ? previewStepsOf() : 0;
  const isHere = capabilities.value?.vaes.some(({ name }) => name === vaeName.value);
  return {
    ...{ request, preview_steps },
    ...(model.value && { model: model.value.id }),
    ...(isHere && vaeName.value !== null && { vae: vaeName.value }),
  };
}

/** Whether the prompts have weights and nothing says how they are read. */
export const readsWeights = computed(() => {
  const { prompt, negative_prompt: negative, prompt_syntax: syntax, compat } = given.value;
  if (syntax !== undefined || (compat !== undefined && compat !== "diffusers")) return false;
  return [prompt, negative].some((text) => isText(text) && hasWeights(text));
});

// --- internal ---

const ofRecipes = ["num_inference_steps", "scheduler", "sigmas", "guidance_scale"];
const previewCount = 15;

function isText(value: unknown): value is string {
  return typeof value === "string" && value.trim() !== "";
}

/** So that a long job has about `previewCount` previews, and a short one has all. */
function previewStepsOf(): number {
  return Math.max(1, Math.round(Number(settingValue("num_inference_steps") ?? 1) / previewCount));
}

function readKept(): Kept {
  const empty = { settings: {}, model: null, vae: null, refiner: null, keepsSeed: false };
  try {
    return { ...empty, ...JSON.parse(storedText("localStorage", storageKey) ?? "{}") };
  } catch {
    return empty;
  }
}

effect(() => {
  const now: Kept = {
    settings: given.value,
    model: modelId.value,
    vae: vaeName.value,
    refiner: refiner.value,
    keepsSeed: keepsSeed.value,
  };
  storeText("localStorage", storageKey, JSON.stringify(now));
});
