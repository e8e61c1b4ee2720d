/**
 * Reads A1111's text, as A1111, Forge, SD.Next, Civitai and many others write it.
 */
import { escaped } from "../errors.ts";
import { type Compat, compatNames } from "../settings/names.ts";
import type { GivenSettings } from "../settings/table.ts";
import { parseInfotext } from "./infotext.ts";
import { ownSchedule, Recipe } from "./recipe.ts";

/** A1111's names of how it weighs. */
export const emphases: Readonly<Record<string, GivenSettings["emphasis"]>> = {
  Original: "original",
  "No norm": "no_norm",
  Ignore: "ignore",
  None: "none",
};

/** A1111's names of what enlarges between two passes. */
export const hiresNames: Readonly<Record<string, string>> = {
  latent: "Latent",
  "latent-bicubic": "Latent (bicubic)",
  "latent-nearest-exact": "Latent (nearest-exact)",
  lanczos: "Lanczos",
};

export function recipeOfInfotext(text: string): Recipe {
  const { prompt, negativePrompt, fields } = parseInfotext(text);
  const byName = new Map(fields);
  const field = (name: string) => byName.get(name)?.trim();
  const version = field("Version") ?? "";
  const isOwn = version.startsWith("BasedXL");
  const compat = isOwn ? ownCompat(field("Compat")) : fields.length > 0 ? "a1111" : "diffusers";
  const recipe = new Recipe(isOwn ? version : "A1111", compat);
  if (fields.length === 0) {
    recipe.warn("The image has a prompt and no other parameters.");
  }
  // An empty negative prompt is not written; what it is follows from the tool.
  recipe.takePrompts(prompt, negativePrompt === "" ? undefined : negativePrompt);
  recipe.take("stepCount", field("Steps"), "Steps");
  recipe.take("guidanceScale", field("CFG scale"), "CFG scale");
  recipe.take("seed", field("Seed"), "Seed");
  const [variation, strength] = ["Variation seed", "Variation seed strength"];
  recipe.take("variationSeed", field(variation), variation);
  recipe.take("variationStrength", field(strength), strength);
  recipe.take("etaNoiseSeedDelta", field("ENSD"), "ENSD");
  const [, width, height] = /^(\d{1,6})x(\d{1,6})$/.exec(field("Size") ?? "") ?? [];
  if (width !== undefined) recipe.takeSize(Number(width), Number(height));
  const sampler = field("Sampler");
  if (sampler !== undefined) {
    // Samplers of timesteps have no schedule; older versions had none for others.
    const isOfTimesteps = /^(ddim|plms|unipc)/i.test(sampler);
    const absent = isOwn || isOfTimesteps ? ownSchedule : "normal";
    recipe.takeSampler(sampler, field("Schedule type"), absent);
    takeNoise(recipe, field, isOfTimesteps);
  }
  if (field("Noise Schedule") === "Zero Terminal SNR") recipe.settings.rescaleBetasZeroSnr = true;
  // Absent is the GPU's.
  if (fields.length > 0) recipe.settings.rng = field("RNG") === "CPU" ? "cpu" : "cuda";
  const model = field("Model");
  const modelHash = field("Model hash");
  if (model !== undefined || modelHash !== undefined) {
    recipe.model = { name: model ?? "", digits: digitsOf(modelHash) };
  }
  const vae = field("VAE");
  if (vae !== undefined && !/^(none|automatic)$/i.test(vae)) {
    recipe.vae = { name: vae, digits: digitsOf(field("VAE hash")) };
  }
  takeRefiner(recipe, field);
  for (const [name, digits] of hashList(field("Lora hashes"))) recipe.loraDigits.set(name, digits);
  recipe.embeddings = hashList(field("TI hashes")).map(([name, digits]) => {
    return { name, word: name, digits };
  });
  if (fields.length > 0) takeSyntax(recipe, field("Emphasis") ?? "Original");
  takeHires(recipe, field);
  warnOfOthers(recipe, fields);
  return recipe;
}

// --- internal ---

/** The second pass, where the image has one and its upscaler is known. */
function takeHires(recipe: Recipe, field: (name: string) => string | undefined): void {
  const factor = field("Hires upscale");
  const name = field("Hires upscaler");
  // Where it enlarges, bilinear is the same with antialiasing.
  const plain = name === "Latent (antialiased)" ? "Latent" : name;
  const known = Object.keys(hiresNames).find((each) => hiresNames[each] === plain);
  if (factor === undefined || known === undefined) return;
  recipe.take("hires", factor, "Hires upscale");
  recipe.take("hiresSteps", field("Hires steps"), "Hires steps");
  recipe.take("hiresStrength", field("Denoising strength"), "Denoising strength");
  recipe.settings.hiresUpscaler = known;
}

/** Of its sampler's options those that this program has too. */
function takeNoise(
  recipe: Recipe,
  field: (name: string) => string | undefined,
  isOfTimesteps: boolean,
): void {
  const eta = isOfTimesteps ? "Eta DDIM" : "Eta";
  recipe.take("eta", field(eta), eta);
  recipe.take("sNoise", field("Sigma noise"), "Sigma noise");
  if (field("SGM noise multiplier") === "True" && !isOfTimesteps) {
    recipe.settings.firstSigma = "sqrt";
  }
}

/** "name [hash]", and the part of the noise levels before it. */
function takeRefiner(recipe: Recipe, field: (name: string) => string | undefined): void {
  const refiner = field("Refiner");
  if (refiner === undefined) return;
  const [, name = refiner, hash] = /^(.*?) \[([0-9a-f]{8,64})\]$/i.exec(refiner) ?? [];
  recipe.refiner = { name, digits: digitsOf(hash) };
  recipe.take("denoisingEnd", field("Refiner switch at"), "Refiner switch at");
}

/** What images of this program with only A1111's text were made as. */
function ownCompat(name: string | undefined): Compat {
  return compatNames.find((each) => each === name) ?? "diffusers";
}

/** How its prompts are read. Its clip skip changes nothing with SDXL. */
function takeSyntax(recipe: Recipe, emphasis: string): void {
  const known = emphases[emphasis];
  // Without a tool plain text is what it is.
  if (recipe.settings.compat === undefined) {
    if (known === "none") return;
    recipe.settings.promptSyntax = "a1111";
  }
  if (known === undefined) {
    recipe.warn(`The emphasis "${escaped(emphasis, 40)}" is not known: Original takes its place.`);
  } else if (known !== "original") recipe.settings.emphasis = known;
}

/** Fields that change nothing, or that are read above. */
const understood = new Set(
  (
    "Steps,CFG scale,Seed,Size,Sampler,Schedule type,RNG,Model,Model hash,VAE,VAE hash," +
    "Lora hashes,TI hashes,Clip skip,Version,User,App,Backend,Pipeline,Parser,Operations," +
    "Emphasis,Pad conds,Pad conds v0,Hashes,Civitai resources,Civitai metadata,Created Date," +
    "Batch size,Batch pos,Compat,Eta,Eta DDIM,Sigma noise,SGM noise multiplier,Noise Schedule," +
    "Downcast alphas_cumprod,Variation seed,Variation seed strength,ENSD,Refiner," +
    "Refiner switch at"
  ).split(","),
);

/** Read where the second pass is one that this program has. */
const ofHires = new Set(["Hires upscale", "Hires steps", "Hires upscaler", "Denoising strength"]);

/** What fields belong to, by how they begin. */
const features: readonly (readonly [pattern: RegExp, feature: string])[] = [
  [/^Hires /, "The hires fix"],
  [/^ControlNet/, "ControlNet"],
  [/^ADetailer /, "ADetailer"],
  [/^Refiner/, "The refiner"],
  [/^Seed resize/, "The resized seed"],
  [/^Mask |^Inpaint|^Masked /, "Inpainting"],
  [/^Denoising strength/, "The start from another image, or the hires fix"],
  [/^FreeU/, "FreeU"],
  [/^Tiling/, "Tiling"],
  [/^Postprocess /, "The enlarging afterwards"],
  [/^Dynamic thresholding|^Mimic|^CFG mode|^CFG scale minimum/i, "Dynamic thresholding"],
  [/^Style Selector/, "The style selector"],
];

function warnOfOthers(
  recipe: Recipe,
  fields: readonly (readonly [name: string, value: string])[],
): void {
  const isRead = (name: string) =>
    understood.has(name) || (recipe.settings.hires !== undefined && ofHires.has(name));
  const names = fields.map(([name]) => name).filter((name) => !isRead(name));
  const isHires = names.some((name) => name.startsWith("Hires "));
  const unknown: string[] = [];
  for (const name of names) {
    if (isHires && name === "Denoising strength") continue;
    const [, feature] = features.find(([pattern]) => pattern.test(name)) ?? [];
    if (feature === undefined) unknown.push(name);
    else recipe.warn(`${feature} of the image is not repeated.`);
  }
  if (unknown.length === 0) return;
  const shown = unknown.slice(0, 8).map((name) => escaped(name, 40));
  const more = unknown.length > shown.length ? ` and ${unknown.length - shown.length} more` : "";
  recipe.warn(`These fields of the image are not read: ${shown.join(", ")}${more}.`);
}

/** "a: 0123456789ab, b: ..." */
function hashList(text: string | undefined): [name: string, digits: string][] {
  return (text ?? "").split(",").flatMap((entry): [string, string][] => {
    const [, name, hash] = /^(.{1,300}):\s*([0-9a-fA-F]{8,64})$/.exec(entry.trim()) ?? [];
    return name === undefined ? [] : [[name.trim(), hash!.toLowerCase()]];
  });
}

function digitsOf(hash: string | undefined): string | undefined {
  return /^[0-9a-f]{8,64}$/i.test(hash ?? "") ? hash!.toLowerCase() : undefined;
}
