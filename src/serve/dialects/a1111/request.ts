/**
 * A request of A1111 as a job, with A1111's semantics (`--compat a1111`). What this
 * program cannot do is refused by its name.
 * Source: A1111 1.10 and Forge, modules/api/api.py (text2imgapi) and modules/processing.py.
 */
import type { ImageFormat } from "../../../image/encoder.ts";
import { shortHash } from "../../../library/hashes.ts";
import { isObject, type JsonObject } from "../../../metadata/foreign-json.ts";
import { emphases, recipeOfInfotext } from "../../../metadata/from-infotext.ts";
import { samplerNamed } from "../../../settings/names.ts";
import { chooseSeed, firstSeedMax } from "../../../settings/setting.ts";
import { type RequestSettings, settings as table } from "../../../settings/table.ts";
import type { Capabilities } from "../../capabilities.ts";
import { filesOrNull } from "../../input-files.ts";
import type { InputImages, JobSpec } from "../../jobs/types.ts";
import { type ListedModel, modelNamed, nameIn, withoutHash } from "../listed-names.ts";
import { RequestedRecipe } from "../requested-recipe.ts";
import { controlUnitsOf, isControlNet } from "./control-units.ts";
import { A1111Error, notThere } from "./errors.ts";
import { badField, type CommonFields, readTextToImage } from "./fields.ts";
import type { JobData } from "./job-data.ts";
import { type A1111Options, noModel, type Options } from "./options.ts";
import { refinerOf, scoresOf } from "./refiner.ts";
import { isSchedule } from "./schedules.ts";
import { secondPassOf } from "./second-pass.ts";

export interface Asked {
  spec: Omit<JobSpec, "client"> & { dialectData: JobData };
  /** null where it reads none. */
  images: InputImages | null;
  fields: CommonFields;
}

/** Of txt2img. Throws `A1111Error`, and "bad-option" for a value that no setting has. */
export function readTextToImageRequest(
  body: JsonObject,
  options: Options,
  lists: Capabilities,
): Asked {
  const fields = readTextToImage(body);
  if (fields.firstpass_image) throw notThere("An image of the first pass (firstpass_image)");
  const secondPass = secondPassOf(fields, lists);
  const { request, ...rest } = specOf(fields, body, options, lists);
  if (rest.refiner !== undefined && fields.enable_hr) {
    throw notThere("A refiner of the second pass (refiner_checkpoint with enable_hr)");
  }
  const units = controlUnitsOf(fields.alwayson_scripts, lists, null);
  return {
    fields,
    spec: { ...rest, request: { ...request, ...secondPass, ...units.settings } },
    images: filesOrNull({ image: null, mask: null, ...units.images }),
  };
}

/**
 * The job of the fields that both kinds of requests have; throws likewise. `strength` is that of an
 * image to start from.
 */
export function specOf(
  fields: CommonFields,
  body: JsonObject,
  options: Options,
  lists: Capabilities,
  strength = 1,
): Asked["spec"] {
  refuseMissing(fields);
  const opts = options.current(lists, fields.override_settings ?? {});
  refuseOptions(opts);
  const model = modelNamed(lists, opts.sd_model_checkpoint);
  if (model === null) throw noModel(opts.sd_model_checkpoint);
  const { recipe, seeds } = readSettings(fields, opts);
  const asked = { ...recipe.settings, ...ofInfotext(fields.infotext, body) };
  const stepCount = takenSteps(asked.stepCount ?? 1, strength);
  const { refiner, denoisingEnd } = refinerOf(fields, { model, stepCount, lists });
  const shared = denoisingEnd !== undefined && { denoisingEnd, ...scoresOf(opts) };
  const request = { ...asked, ...shared };
  if (!fields.override_settings_restore_afterwards) {
    options.set(fields.override_settings ?? {}, lists);
  }
  return {
    request: request as RequestSettings,
    model: model.id,
    vae: vaeOf(opts, lists),
    refiner,
    previewSteps: opts.live_previews_enable ? previewSteps(opts) : 0,
    format: formatOf(opts),
    quality: qualityOf(opts),
    dialect: "a1111",
    dialectData: {
      ...(fields.force_task_id !== null && { taskId: fields.force_task_id.slice(0, 200) }),
      ...seeds,
      iterations: fields.n_iter as number,
      warnings: recipe.warnings,
      model: named(model),
    },
  };
}

// --- internal ---

/** What A1111 has and this program has not. */
function refuseMissing(fields: CommonFields): void {
  if (fields.restore_faces) throw notThere("Restoring of faces (restore_faces)");
  if (fields.tiling) throw notThere("Tiling (tiling)");
  if ((fields.s_churn ?? 0) > 0) throw notThere("Churn (s_churn)");
  if ((fields.s_min_uncond ?? 0) > 0) throw notThere("Skipping of guidance (s_min_uncond)");
  const resized = [fields.seed_resize_from_w, fields.seed_resize_from_h];
  if (resized.every((side) => Number(side) > 0)) throw notThere("The resized seed");
  if (fields.disable_extra_networks) throw notThere("Ignoring of tags (disable_extra_networks)");
  const { script_name: script } = fields;
  if (script) throw new A1111Error(422, `Script '${script.slice(0, 100)}' not found`);
  for (const [name, value] of Object.entries(fields.alwayson_scripts)) {
    const args = isObject(value) ? (value.args ?? []) : value;
    if (isControlNet(name) || (Array.isArray(args) && args.length === 0)) continue;
    throw new A1111Error(422, `always on script ${name.slice(0, 100)} not found`);
  }
}

function refuseOptions({ sd_noise_schedule }: A1111Options): void {
  if (sd_noise_schedule !== "Default") throw notThere(`The noise schedule ${sd_noise_schedule}`);
}

/** undefined for the model's own. */
function vaeOf({ sd_vae: name }: A1111Options, { vaes }: Capabilities): string | undefined {
  if (/^(automatic|none|)$/i.test(name)) return undefined;
  const found = nameIn(vaes, withoutHash(name));
  if (found !== null) return found;
  throw notThere(`The VAE ${JSON.stringify(name.slice(0, 100))} (sd_vae)`);
}

function readSettings(fields: CommonFields, opts: A1111Options) {
  const recipe = new RequestedRecipe("A1111", "a1111");
  const { settings } = recipe;
  settings.prompt = fields.prompt;
  if (fields.negative_prompt !== "") settings.negativePrompt = fields.negative_prompt;
  recipe.take("stepCount", fields.steps, "steps");
  recipe.take("guidanceScale", fields.cfg_scale, "cfg_scale");
  recipe.takeSize(Number(fields.width), Number(fields.height));
  takeSampler(recipe, fields, opts);
  takeCounts(recipe, fields);
  const seeds = takeSeeds(recipe, fields);
  recipe.take("etaNoiseSeedDelta", opts.eta_noise_seed_delta || null, "eta_noise_seed_delta");
  settings.rng = opts.randn_source === "CPU" ? "cpu" : "cuda";
  const emphasis = emphases[opts.emphasis];
  if (emphasis === undefined) throw new A1111Error(422, "This emphasis is not known.");
  if (emphasis !== "original") settings.emphasis = emphasis;
  return { recipe, seeds };
}

function takeSampler(recipe: RequestedRecipe, fields: CommonFields, opts: A1111Options): void {
  const sampler = fields.sampler_name || fields.sampler_index;
  const named = samplerNamed(sampler);
  if (named === null) throw new A1111Error(404, "Sampler not found");
  const schedule = fields.scheduler || "Automatic";
  if (!isSchedule(schedule)) throw new A1111Error(404, "Scheduler not found");
  recipe.takeSampler(sampler, schedule);
  const isOfTimesteps = named.name === "ddim";
  const eta = fields.eta ?? (isOfTimesteps ? opts.eta_ddim : opts.eta_ancestral);
  if (eta !== (isOfTimesteps ? 0 : 1)) recipe.take("eta", eta, "eta");
  const { s_noise: noise } = fields;
  if (noise !== null && noise !== 1) recipe.take("sNoise", noise, "s_noise");
  if (opts.sgm_noise_multiplier && !isOfTimesteps) recipe.settings.firstSigma = "sqrt";
}

function takeCounts(recipe: RequestedRecipe, fields: CommonFields): void {
  const [size, iterations] = [Number(fields.batch_size), Number(fields.n_iter)];
  const { max } = table.imageCount;
  for (const [name, count] of [["batch_size", size] as const, ["n_iter", iterations] as const]) {
    if (count < 1) throw badField(name, "must be 1 or more");
  }
  if (size * iterations > max) {
    throw badField("n_iter", `a request has ${max} images at most, not ${size * iterations}`);
  }
  recipe.settings.imageCount = size * iterations;
  recipe.settings.batchSize = Math.min(size, table.batchSize.max);
}

/** -1 is a random one, of 32 bits as in A1111. */
function takeSeeds(recipe: RequestedRecipe, fields: CommonFields) {
  const chosen = (seed: number | string) => `${Number(seed) === -1 ? chooseSeed() : seed}`;
  const [seed, subseed] = [chosen(fields.seed), chosen(fields.subseed)];
  const { subseed_strength: strength } = fields;
  recipe.take("seed", seed, "seed");
  recipe.take("variationSeed", subseed, "subseed");
  recipe.take("variationStrength", strength || null, "subseed_strength");
  const first = strength > 0 ? recipe.settings.variationSeed : recipe.settings.seed;
  if (strength === 0) delete recipe.settings.variationSeed;
  const count = recipe.settings.imageCount ?? 1;
  if (first !== undefined && first > firstSeedMax(count)) {
    throw badField("seed", `leaves no room for the seeds of ${count} images`);
  }
  return { seed, subseed };
}

/** Of an image to start from one more than its part (setup_img2img_steps). */
function takenSteps(stepCount: number, strength: number): number {
  return strength === 1 ? stepCount : Math.trunc(Math.min(strength, 0.999) * stepCount) + 1;
}

/** Fields of a request, by the setting that an infotext would have for them. */
const fieldsOfInfotext: Readonly<Record<string, readonly (keyof RequestSettings)[]>> = {
  prompt: ["prompt"],
  negative_prompt: ["negativePrompt"],
  steps: ["stepCount"],
  cfg_scale: ["guidanceScale"],
  seed: ["seed"],
  width: ["width"],
  height: ["height"],
  sampler_name: ["scheduler", "sigmas"],
  subseed: ["variationSeed"],
  subseed_strength: ["variationStrength"],
};

/** What an infotext says in the place of fields that the request leaves out. */
function ofInfotext(infotext: string | null, body: JsonObject): Partial<RequestSettings> {
  if (infotext === null) return {};
  const { settings } = recipeOfInfotext(infotext);
  const missing = Object.entries(fieldsOfInfotext).filter(
    ([name]) => (body[name] ?? null) === null,
  );
  const found = missing.flatMap(([, keys]) => keys).filter((key) => settings[key] !== undefined);
  return Object.fromEntries(found.map((key) => [key, settings[key]]));
}

function previewSteps({ show_progress_every_n_steps: steps }: A1111Options): number {
  return Number.isInteger(steps) && steps > 0 ? Math.min(steps, table.stepCount.max) : 0;
}

const formats: Readonly<Record<string, ImageFormat>> = {
  ...{ png: "png", jpg: "jpeg", jpeg: "jpeg", webp: "webp", avif: "avif" },
};

function formatOf({ samples_format: name }: A1111Options): ImageFormat {
  const format = formats[name.toLowerCase()];
  if (format !== undefined) return format;
  throw new A1111Error(422, "Invalid image format");
}

function qualityOf({ jpeg_quality: quality }: A1111Options): number {
  if (Number.isInteger(quality) && quality >= 1 && quality <= 100) return quality;
  throw new A1111Error(422, "jpeg_quality must be a whole number from 1 to 100.");
}

function named({ name, sha256 }: ListedModel): JobData["model"] {
  return { name, hash: sha256 && shortHash(sha256) };
}
