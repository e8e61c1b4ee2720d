/**
 * A request for images as OpenAI's clients send it, as a job: OpenAI's fields, and the settings of
 * this program by the names that they have in JSON.
 * Source: the types of OpenAI's npm package, resources/images.
 */
import * as v from "valibot";
import type { ImageFormat, Size } from "../../../image/encoder.ts";
import type { JsonObject } from "../../../metadata/foreign-json.ts";
import { fieldKeys, requestSchema } from "../../../settings/request-schema.ts";
import { firstSeedMax } from "../../../settings/setting.ts";
import { settings } from "../../../settings/table.ts";
import { asField } from "../../../settings/values.ts";
import type { Capabilities } from "../../capabilities.ts";
import type { JobSpec } from "../../jobs/types.ts";
import { defaultModel, type ListedModel, modelNamed, nameIn } from "../listed-names.ts";
import { invalidValue, OpenAiError } from "./errors.ts";

/** What answers need to know of a request; kept with the job. */
export interface AskedImages {
  format: "b64_json" | "url";
  outputFormat: ImageFormat;
  /** By OpenAI's names. */
  quality: string;
  partialImages: number;
}

export interface ImagesRequest {
  spec: Omit<JobSpec, "client">;
  asked: AskedImages;
  stream: boolean;
  /** Of the image, for previews. */
  width: number;
  height: number;
}

/** `source` is the size of the image that "auto" follows. Throws `OpenAiError`. */
export function readImagesRequest(
  body: JsonObject,
  capabilities: Capabilities,
  source: Size | null = null,
): ImagesRequest {
  const given = Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null));
  const own = readOwn(given);
  const model = modelOf(own.model, capabilities);
  const size = sizeOf(own.size, source === null ? model : nearSize(source, model));
  const outputFormat = own.output_format;
  const request = readSettings(
    {
      ...extrasOf(given, capabilities),
      prompt: own.prompt,
      quality: qualities[own.quality],
      num_images: own.n,
      ...((own.size !== "auto" || source !== null) && size),
    },
    own.n,
  );
  const partialImages = own.stream ? own.partial_images : 0;
  const steps = request.stepCount ?? model.defaults.steps;
  return {
    spec: {
      request,
      model: model.id,
      vae: own.vae === undefined ? undefined : vaeOf(own.vae, capabilities),
      refiner:
        own.refiner === undefined ? undefined : modelOf(own.refiner, capabilities, "refiner").id,
      previewSteps: partialImages > 0 ? Math.max(1, Math.floor(steps / (partialImages + 1))) : 0,
      format: outputFormat,
      quality: outputFormat === "png" ? undefined : Math.max(1, own.output_compression),
      dialect: "openai",
    },
    asked: {
      format: own.response_format,
      outputFormat,
      quality: answered[qualities[own.quality]],
      partialImages,
    },
    stream: own.stream,
    ...size,
  };
}

// --- internal ---

type Quality = "exact" | "high" | "balanced" | "fast";

/** OpenAI's names, and this program's. */
const qualities = {
  ...({ auto: "exact", standard: "exact", hd: "exact", max: "exact", xhigh: "exact" } as const),
  ...({ high: "high", medium: "balanced", low: "fast" } as const),
  ...({ exact: "exact", balanced: "balanced", fast: "fast" } as const),
} satisfies Record<string, Quality>;

/** As answers name them. */
const answered: Readonly<Record<Quality, string>> = {
  exact: "max",
  high: "high",
  balanced: "medium",
  fast: "low",
};

/** Names that other servers have for fields of this one. */
const otherNames: Readonly<Record<string, string>> = {
  steps: "num_inference_steps",
  cfg_scale: "guidance_scale",
  sampler: "scheduler",
  loras: "lora",
};

const whole = (name: string, min: number, max: number) => {
  const range = `${name} must be a whole number from ${min} to ${max}.`;
  return v.pipe(v.number(range), v.integer(range), v.minValue(min, range), v.maxValue(max, range));
};
const oneOf = <const Names extends readonly string[]>(name: string, names: Names) =>
  v.picklist(names, `${name} must be one of ${names.join(", ")}.`);
const text = (name: string) => v.string(`${name} must be a text.`);

const ownSchema = v.object({
  prompt: v.pipe(
    text("prompt"),
    v.check((prompt) => prompt.trim() !== "", "prompt must not be empty."),
    v.maxLength(32_000, "prompt has 32000 characters at most."),
  ),
  model: v.optional(text("model")),
  vae: v.optional(text("vae")),
  refiner: v.optional(text("refiner")),
  n: v.optional(whole("n", settings.imageCount.min, settings.imageCount.max), 1),
  size: v.optional(text("size"), "auto"),
  quality: v.optional(oneOf("quality", Object.keys(qualities) as Named[]), "auto"),
  response_format: v.optional(oneOf("response_format", ["b64_json", "url"]), "b64_json"),
  output_format: v.optional(oneOf("output_format", ["png", "jpeg", "webp", "avif"]), "png"),
  output_compression: v.optional(whole("output_compression", 0, 100), 100),
  background: v.optional(
    v.picklist(["auto", "opaque"], "background must be auto or opaque: images have no alpha."),
  ),
  stream: v.optional(v.boolean("stream must be true or false."), false),
  partial_images: v.optional(whole("partial_images", 0, 3), 0),
  moderation: v.optional(oneOf("moderation", ["auto", "low"])),
  style: v.optional(oneOf("style", ["vivid", "natural"])),
  user: v.optional(text("user")),
  safety_identifier: v.optional(text("safety_identifier")),
});

type Named = keyof typeof qualities;
const ownFields = new Set(Object.keys(ownSchema.entries));

function readOwn(given: JsonObject) {
  const result = v.safeParse(ownSchema, given);
  if (result.success) return result.output;
  const [issue] = result.issues;
  const param = String(issue.path?.[0]?.key ?? "");
  if (given[param] === undefined) {
    throw new OpenAiError(
      400,
      "missing_required_parameter",
      `Missing required parameter: '${param}'.`,
      param,
    );
  }
  throw invalidValue(param, issue.message);
}

function modelOf(
  name: string | undefined,
  capabilities: Capabilities,
  param = "model",
): ListedModel {
  const found = name === undefined ? defaultModel(capabilities) : modelNamed(capabilities, name);
  if (found !== null) return found;
  throw noModel(name ?? "", param);
}

function vaeOf(name: string, { vaes }: Capabilities): string {
  const found = nameIn(vaes, name);
  if (found !== null) return found;
  throw invalidValue("vae", `There is no VAE ${JSON.stringify(name.slice(0, 200))}.`);
}

/** The error of a model that is not listed. */
export function noModel(name: string, param = "model"): OpenAiError {
  const message = `The model '${name.slice(0, 200)}' does not exist.`;
  return new OpenAiError(404, "model_not_found", message, param);
}

/** The nearest that the model has. */
function nearSize({ width, height }: Size, { sizeMultiple: unit }: ListedModel): Size {
  const near = (side: number) => {
    const nearest = Math.max(unit, Math.round(side / unit) * unit);
    return Math.min(nearest, Math.floor(settings.width.max / unit) * unit);
  };
  return { width: near(width), height: near(height) };
}

function sizeOf(size: string, { width, height }: Size) {
  if (size === "auto") return { width, height };
  const [, x, y] = /^(\d{1,5})x(\d{1,5})$/.exec(size) ?? [];
  if (x !== undefined) return { width: Number(x), height: Number(y) };
  throw invalidValue("size", "size must be auto or WIDTHxHEIGHT, such as 1024x1024.");
}

/** Settings of this program beside OpenAI's fields, by the names of a request in JSON. */
function extrasOf(given: JsonObject, capabilities: Capabilities): JsonObject {
  const extras = Object.entries(given).filter(([name]) => !ownFields.has(name));
  return Object.fromEntries(
    extras.map(([name, value]) => {
      const field = otherNames[name] ?? name;
      if (!requestFields.has(field) || decided.has(field)) {
        const message = `Unknown parameter: '${name.slice(0, 200)}'.`;
        throw new OpenAiError(400, "unknown_parameter", message, name);
      }
      return [field, field === "lora" ? lorasOf(value, capabilities) : value];
    }),
  );
}

const requestFields = new Set(fieldKeys.map(asField));
/** What OpenAI's fields say. */
const decided = new Set(["prompt", "quality", "num_images"]);

/** Only those that are listed. */
function lorasOf(value: unknown, capabilities: Capabilities): unknown {
  if (!Array.isArray(value)) return value;
  return value.map((each: unknown) => {
    const item = settings.loras.of.fromJson(each);
    if (!settings.loras.of.accepts(item)) return each;
    const file = nameIn(capabilities.loras, item.file);
    if (file !== null) return { file, scale: item.scale, text_scale: item.textScale };
    throw invalidValue("loras", `There is no LoRA ${JSON.stringify(item.file.slice(0, 200))}.`);
  });
}

function readSettings(fields: JsonObject, count: number): JobSpec["request"] {
  const result = v.safeParse(requestSchema, fields);
  if (!result.success) {
    const [issue] = result.issues;
    const field = String(issue.path?.[0]?.key ?? "");
    const param = ["width", "height"].includes(field) ? "size" : field;
    throw invalidValue(param, issue.message);
  }
  const { seed } = result.output;
  if (seed !== undefined && seed > firstSeedMax(count)) {
    throw invalidValue("seed", `seed leaves no room for ${count} images, one up each.`);
  }
  return result.output;
}
