/**
 * Reads SwarmUI's JSON: parameters by their names in lower case.
 * Source: SwarmUI, src/Text2Image/T2IParamInput.cs (GenFullMetadataObject).
 */
import { isObject, type JsonObject, numberOf, textOf, wordsOf } from "./foreign-json.ts";
import { Recipe } from "./recipe.ts";

/** null for other objects. */
export function recipeOfSwarmUi(json: JsonObject): Recipe | null {
  const values = json.sui_image_params;
  if (!isObject(values)) return null;
  // Its backend is ComfyUI.
  const recipe = new Recipe("SwarmUI", "comfyui");
  recipe.takePrompts(textOf(values.prompt) ?? "", textOf(values.negativeprompt));
  recipe.take("seed", values.seed, "seed");
  recipe.take("stepCount", values.steps, "steps");
  recipe.take("guidanceScale", values.cfgscale, "CFG scale");
  const [width, height] = [numberOf(values.width), numberOf(values.height)];
  if (width !== undefined && height !== undefined) recipe.takeSize(width, height);
  recipe.takeSampler(textOf(values.sampler) ?? "euler", textOf(values.scheduler));
  const digits = hashesOf(json.sui_models);
  const model = textOf(values.model);
  if (model !== undefined) recipe.model = { name: model, digits: digits.get(`model ${model}`) };
  const vae = textOf(values.vae);
  if (vae !== undefined && vae !== "None" && vae !== "Automatic") {
    recipe.vae = { name: vae, digits: digits.get(`vae ${vae}`) };
  }
  const weights = listOf(values.loraweights);
  recipe.loras = listOf(values.loras).map((name, index) => {
    const scale = numberOf(weights[index]) ?? 1;
    return { name, scale, textScale: scale, digits: digits.get(`loras ${name}`) };
  });
  for (const [key, what] of notRepeated) {
    if (Object.keys(values).some((name) => name.startsWith(key))) {
      recipe.warn(`${what} of the image is not repeated.`);
    }
  }
  return recipe;
}

// --- internal ---

const notRepeated = [
  ["refiner", "The refiner"],
  ["initimage", "The start from another image"],
  ["controlnet", "ControlNet"],
  ["variationseed", "The variation of the seed"],
  ["freeu", "FreeU"],
  ["seamlesstileable", "Tiling"],
  ["clipstopatlayer", "The clip skip"],
] as const;

/** Lists are arrays, or texts with commas between. */
function listOf(value: unknown): string[] {
  const list = typeof value === "string" ? value.split(",") : Array.isArray(value) ? value : [];
  return list.map((each) => wordsOf(each).trim()).filter((each) => each !== "");
}

/** By parameter and name; "0x" stands before the digits. */
function hashesOf(models: unknown): Map<string, string> {
  const entries = Array.isArray(models) ? models.filter(isObject) : [];
  return new Map(
    entries.flatMap(({ name, param, hash }): [string, string][] => {
      const [, digits] = /^(?:0x)?([0-9a-f]{8,64})$/i.exec(textOf(hash) ?? "") ?? [];
      return digits === undefined ? [] : [[`${param} ${name}`, digits.toLowerCase()]];
    }),
  );
}
