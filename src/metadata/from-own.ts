/**
 * Reads this program's own JSON.
 */
import * as v from "valibot";
import { BasedXLError, escaped } from "../errors.ts";
import { resources } from "../resources.ts";
import { embeddingItem } from "../settings/embedding.ts";
import { loraItem } from "../settings/lora.ts";
import { settingKeys, settingOf } from "../settings/table.ts";
import { asField, checkSetting } from "../settings/values.ts";
import { type JsonObject, wordsOf } from "./foreign-json.ts";
import { Recipe } from "./recipe.ts";
import { formatVersion, isRecorded, ownSchema } from "./record.ts";

/** Throws "bad-option" for a text of another version, or one that somebody has changed. */
export function recipeOfOwn(json: JsonObject, path: string): Recipe {
  const refuse = (why: string) => new BasedXLError("bad-option", `${escaped(path, 300)} ${why}.`);
  if (json.format !== formatVersion) {
    const version = escaped(wordsOf(json.basedxl), 20);
    throw refuse(`was written by BasedXL ${version}, whose parameters this version does not read`);
  }
  const parsed = v.safeParse(ownSchema, json);
  if (!parsed.success) throw refuse("has parameters of BasedXL that are damaged");
  const { basedxl, settings, model, refiner, vae, config, loras, embeddings, hardware, input } =
    parsed.output;
  const { ip_adapters: ipAdapters = [] } = parsed.output;
  const recipe = new Recipe(`BasedXL ${escaped(basedxl, 20)}`);
  const { basedxl: own } = resources.versions();
  if (basedxl !== own) recipe.warn(`${recipe.tool} wrote the image: ${own} may differ from it.`);
  if (parsed.output.enlarged !== undefined) {
    recipe.warn("The enlarging afterwards of the image is not repeated.");
  }
  takeValues(recipe, settings);
  // Two files of one name are told apart by their folders alone.
  const digitsOf = (name: string, files: typeof loras) => {
    const [file, ...others] = files.filter((each) => each.name === name);
    return others.length === 0 ? file?.sha256?.[0] : undefined;
  };
  for (const { name } of loras) {
    const digits = digitsOf(name, loras);
    if (digits !== undefined) recipe.loraDigits.set(name, digits);
  }
  recipe.loras = itemsOf(settings[asField("loras")], loraItem).map(({ file, ...scales }) => {
    const { scale = 1, textScale = scale } = scales;
    return { name: file, scale, textScale, digits: digitsOf(stem(file), loras) };
  });
  const files = new Map(
    itemsOf(settings[asField("embeddings")], embeddingItem).map(({ file, name }) => {
      return [(name ?? stem(file)).toLowerCase(), file];
    }),
  );
  // Those of the folders of models are in no setting.
  recipe.embeddings = embeddings.map(({ name: word, sha256 }) => {
    return { name: files.get(word.toLowerCase()) ?? word, word, digits: sha256?.[0] };
  });
  recipe.model = {
    name: model.name,
    digits: model.sha256?.[0],
    isBundled: model.bundled ?? false,
    isFolder: model.component !== undefined,
  };
  if (refiner !== undefined) {
    const { name, sha256, component } = refiner;
    recipe.refiner = { name, digits: sha256?.[0], isFolder: component !== undefined };
  }
  if (vae !== undefined) recipe.vae = { name: vae.name, digits: vae.sha256?.[0] };
  if (config !== undefined) {
    recipe.warn(`The image was made with --config ${escaped(config, 100)}: give it again.`);
  }
  for (const { name, scales } of ipAdapters) {
    recipe.warn(
      `The image was made with --ip-adapter ${escaped(name, 100)} --ip-scale ${scales[0]}: give it \
again, with its --ip-image.`,
    );
  }
  recipe.hardware = hardware;
  recipe.input = input ?? null;
  return recipe;
}

// --- internal ---

function takeValues(recipe: Recipe, settings: JsonObject): void {
  const unknown = new Set(Object.keys(settings));
  for (const key of settingKeys) {
    if (!isRecorded(key)) continue;
    const value = settings[asField(key)];
    unknown.delete(asField(key));
    if (value === undefined || key === "loras" || key === "embeddings") continue;
    takeValue(recipe, key, value);
  }
  for (const name of unknown) recipe.warn(`The setting ${escaped(name, 40)} is not known.`);
}

function takeValue(recipe: Recipe, key: (typeof settingKeys)[number], value: unknown): void {
  const isSeed = settingOf(key).kind === "seed" && /^\d{1,20}$/.test(wordsOf(value));
  try {
    const read = isSeed ? BigInt(wordsOf(value)) : value;
    Object.assign(recipe.settings, { [key]: checkSetting(key, read, asField) });
  } catch (error) {
    if (!(error instanceof BasedXLError)) throw error;
    recipe.warn(`Left out: ${escaped(error.message, 200)}`);
  }
}

function itemsOf<Item>(
  value: unknown,
  of: { fromJson(value: unknown): unknown; accepts(value: unknown): value is Item },
): Item[] {
  return (Array.isArray(value) ? value : []).map((each) => of.fromJson(each)).filter(of.accepts);
}

function stem(name: string): string {
  return name.replace(/^.*\//, "").replace(/\.(safetensors|sft)$/i, "");
}
