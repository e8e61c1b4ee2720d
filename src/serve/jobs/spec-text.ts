/**
 * What a job asks for as JSON: in the store's rows, and in Redis for workers. What is read may be
 * of another version, or of somebody else.
 */
import * as v from "valibot";
import { imageFormats } from "../../image/encoder.ts";
import { requestSchema, requestToJson } from "../../settings/request-schema.ts";
import type { JobSpec } from "./types.ts";

/** As `specOf` reads it. */
export function specText({ request, ...spec }: JobSpec): string {
  return JSON.stringify({ ...spec, request: requestToJson(request) });
}

/** Throws SyntaxError or ValiError for what this version does not write. */
export function specOf(text: string): JobSpec {
  return v.parse(specSchema, JSON.parse(text));
}

// --- internal ---

const name = v.optional(v.string());
const number = v.optional(v.pipe(v.number(), v.integer()));
/** As `Inputs` names its files: a name must lead nowhere else. */
const file = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/));
const files = v.optional(v.array(file));

const fields = {
  request: requestSchema,
  client: v.string(),
  dialect: v.picklist(["own", "openai", "a1111", "comfyui"]),
  ...{ model: name, vae: name, refiner: name },
  ...{ priority: number, previewSteps: number, quality: number },
  format: v.optional(v.picklist(imageFormats)),
  inputs: v.optional(
    v.object({
      ...{ image: v.nullable(file), mask: v.nullable(file), controlImages: files, ipImages: files },
    }),
  ),
  dialectData: v.optional(v.unknown()),
} satisfies Record<keyof JobSpec, v.GenericSchema>;
const specSchema = v.object(fields);
