/**
 * The bodies, queries and answers of the own API. Requests are checked by them, and the OpenAPI
 * document is made from them.
 */
import * as v from "valibot";
import { imageFormats } from "../image/encoder.ts";
import { controlPreprocessors } from "../settings/control.ts";
import { requestSchema } from "../settings/request-schema.ts";
import { jobStates } from "./jobs/types.ts";

const whole = (min: number, max: number) =>
  v.pipe(v.number(), v.integer(), v.minValue(min), v.maxValue(max));

/** A whole number in a query. */
const digits = (min: number, max: number) =>
  v.pipe(v.string(), v.digits(), v.maxLength(9), v.transform(Number), whole(min, max));

const about = <Schema extends v.GenericSchema>(schema: Schema, description: string) =>
  v.pipe(schema, v.description(description));

export const specSchema = v.strictObject({
  request: requestSchema,
  image: v.optional(about(v.string(), "The image to start from, in base64.")),
  mask: v.optional(about(v.string(), "White is made anew, in base64.")),
  control_images: v.optional(
    about(v.array(v.string()), "Hints of controlnet, one for all or one for each, in base64."),
  ),
  ip_images: v.optional(
    about(v.array(v.string()), "What ip_adapter sees, in its order, in base64."),
  ),
  model: v.optional(about(v.string(), "An id of the capabilities' models. Default: the first.")),
  vae: v.optional(
    about(v.string(), "One of the capabilities' VAEs, or an id of the models for its own."),
  ),
  refiner: v.optional(
    about(v.string(), "An id of the models that finishes the images. Default: as the server is."),
  ),
  priority: v.optional(about(whole(-10, 10), "Higher goes first. Default: 0.")),
  preview_steps: v.optional(about(whole(0, 1000), "Steps between previews. Default: 0, none.")),
  format: v.optional(about(v.picklist(imageFormats), "Default: as the server is set.")),
  quality: v.optional(about(whole(1, 100), "Of all formats but PNG.")),
});

/** The part `job` of a form, whose images are files beside it. */
export const jobFormSchema = v.omit(specSchema, ["image", "mask", "control_images", "ip_images"]);

const limit = v.optional(about(digits(1, 1000), "Default: 100."), "100");

export const jobsQuery = v.object({
  state: v.optional(v.picklist(jobStates)),
  client: v.optional(v.string()),
  before: v.optional(about(v.string(), "Jobs older than this one.")),
  limit,
});

export const imagesQuery = v.object({
  before: v.optional(about(v.string(), "Images whose names are below this one.")),
  limit,
});

/** Of a preview: larger ones would keep the server from its other requests. */
const hintSideMax = 1024;

export const hintQuery = v.object({
  preprocess: about(v.picklist(controlPreprocessors), "As the setting control_preprocess."),
  width: about(digits(1, hintSideMax), "Of the hint, whose image is cut and scaled to it."),
  height: digits(1, hintSideMax),
});

export const cancelSchema = v.strictObject({
  what: about(v.picklist(["rest", "all"]), '"rest" is what waits, "all" also what runs.'),
  mine: v.optional(about(v.boolean(), "Only jobs of this client. Default: false.")),
});

export const loginSchema = v.strictObject({ key: v.string() });

const time = about(v.number(), "Milliseconds since 1970.");

const progressSchema = v.object({
  stage: v.string(),
  step: v.number(),
  steps: v.number(),
  secondsPerStep: v.nullable(v.number()),
  secondsLeft: v.nullable(v.number()),
  pass: v.optional(v.object({ index: v.number(), count: v.number() })),
});

const imageSchema = v.object({
  index: v.number(),
  seed: v.string(),
  width: v.number(),
  height: v.number(),
  file: about(v.string(), "Its name at /api/v1/images."),
  bytes: v.number(),
  type: v.string(),
});

const errorSchema = v.object({ code: v.string(), message: v.string() });

export const jobSchema = v.object({
  id: v.string(),
  state: v.picklist(jobStates),
  spec: v.object({
    request: v.record(v.string(), v.unknown()),
    model: v.string(),
    vae: v.optional(v.string()),
    refiner: v.optional(v.string()),
    client: v.string(),
    dialect: v.string(),
  }),
  position: v.nullable(v.number()),
  createdAt: time,
  startedAt: v.nullable(time),
  endedAt: v.nullable(time),
  progress: v.nullable(progressSchema),
  images: v.array(imageSchema),
  warnings: v.array(v.string()),
  error: v.nullable(errorSchema),
  attempts: v.number(),
});

export const jobListSchema = v.object({ jobs: v.array(jobSchema) });

export const galleryImageSchema = v.object({
  name: v.string(),
  bytes: v.number(),
  modifiedAt: time,
  type: v.string(),
});

const rankRowsSchema = v.nullable(
  v.array(v.object({ ranks: v.array(v.number()), first: v.number(), count: v.number() })),
);

export const metadataSchema = v.object({
  tool: v.nullable(about(v.string(), "The program that wrote the image.")),
  parameters: v.nullable(about(v.string(), "The text as A1111 writes it.")),
  model: v.nullable(about(v.string(), "An id of the capabilities, else as the image says.")),
  refiner: v.nullable(about(v.string(), "The same of the model that finished it.")),
  request: v.record(v.string(), v.unknown()),
  rows: about(
    rankRowsSchema,
    "Which ranks computed which rows, in pixels; null where that is not known.",
  ),
  unguidedRows: about(
    rankRowsSchema,
    "The same of steps outside the guidance window; null where that is no other.",
  ),
  warnings: v.array(v.string()),
});
