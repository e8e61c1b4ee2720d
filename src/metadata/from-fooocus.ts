/**
 * Reads Fooocus' JSON. Source: Fooocus, modules/meta_parser.py (FooocusMetadataParser).
 */
import { type JsonObject, numberOf, textOf } from "./foreign-json.ts";
import { Recipe } from "./recipe.ts";

/** null for other objects. */
export function recipeOfFooocus(json: JsonObject): Recipe | null {
  if (json.base_model === undefined || json.prompt === undefined) return null;
  // It runs ComfyUI's code.
  const recipe = new Recipe("Fooocus", "comfyui");
  recipe.takePrompts(
    joined(json.full_prompt) ?? textOf(json.prompt) ?? "",
    joined(json.full_negative_prompt) ?? textOf(json.negative_prompt),
  );
  recipe.take("stepCount", json.steps, "steps");
  recipe.take("guidanceScale", json.guidance_scale, "guidance scale");
  recipe.take("seed", json.seed, "seed");
  const [, width, height] =
    /^\(?(\d{1,6})\D+(\d{1,6})\)?$/.exec(textOf(json.resolution) ?? "") ?? [];
  if (width !== undefined) recipe.takeSize(Number(width), Number(height));
  recipe.takeSampler(textOf(json.sampler) ?? "dpmpp_2m_sde", textOf(json.scheduler), "karras");
  const model = textOf(json.base_model);
  if (model !== undefined) recipe.model = { name: model, digits: digitsOf(json.base_model_hash) };
  const vae = textOf(json.vae);
  if (vae !== undefined && vae !== "Default (model)") recipe.vae = { name: vae };
  recipe.loras = (Array.isArray(json.loras) ? json.loras : []).flatMap((entry: unknown) => {
    const [name, weight, hash] = Array.isArray(entry) ? entry : [];
    const scale = numberOf(weight) ?? 1;
    const isNamed = typeof name === "string" && name !== "None";
    return isNamed ? [{ name, scale, textScale: scale, digits: digitsOf(hash) }] : [];
  });
  const refiner = textOf(json.refiner_model);
  if (refiner !== undefined && refiner !== "None") recipe.warn("The refiner is not repeated.");
  if (numberOf(json.sharpness) || json.adm_guidance !== undefined) {
    recipe.warn("Fooocus' sharpness and its guidance by size are not repeated: images differ.");
  }
  return recipe;
}

// --- internal ---

function joined(parts: unknown): string | undefined {
  const texts = Array.isArray(parts) ? parts.filter((part) => typeof part === "string") : [];
  return texts.length === 0 ? undefined : texts.join(", ");
}

function digitsOf(hash: unknown): string | undefined {
  const text = textOf(hash) ?? "";
  return /^[0-9a-f]{8,64}$/i.test(text) ? text.toLowerCase() : undefined;
}
