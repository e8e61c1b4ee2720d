/**
 * A request to edit an image as OpenAI's clients send it: the fields of a request for images, the
 * image, and a mask whose transparent pixels are made anew. A form of several parts has them as
 * files, JSON in base64.
 * Source: the types of OpenAI's npm package, resources/images (ImageEditParams) and its uploads;
 * OpenAI's API reference, "Create image edit" (images and mask as `image_url` in JSON).
 */
import type { JsonObject } from "../../../metadata/foreign-json.ts";
import type { Capabilities } from "../../capabilities.ts";
import type { InputImages } from "../../jobs/types.ts";
import { sizeOfImage } from "../image-bytes.ts";
import { maskOf } from "../mask-bytes.ts";
import { encodedIn, withoutHints } from "./encoded-images.ts";
import { invalidValue, OpenAiError } from "./errors.ts";
import { type ImagesRequest, readImagesRequest } from "./request.ts";

interface EditRequest {
  request: ImagesRequest;
  images: InputImages;
}

/** Rejects with `OpenAiError`. */
export async function readEditForm(
  form: FormData,
  capabilities: Capabilities,
): Promise<EditRequest> {
  const files = async (param: string, name: string) => {
    return await Promise.all(form.getAll(name).map((part) => fileBytes(param, part)));
  };
  const images = [...(await files("image", "image")), ...(await files("image", "image[]"))];
  const masks = await files("mask", "mask");
  return await editRequest(fieldsOf(form), { images, masks }, capabilities);
}

/** The same of JSON. */
export async function readEditJson(
  body: JsonObject,
  capabilities: Capabilities,
): Promise<EditRequest> {
  const { image, images, mask, ...rest } = body;
  const { fields, hints } = withoutHints(rest);
  const sources = {
    images: [image, images].flatMap((sent) => encodedIn("image", sent)),
    masks: encodedIn("mask", mask),
  };
  const { request, images: own } = await editRequest(fields, sources, capabilities);
  return { request, images: { ...own, ...hints } };
}

// --- internal ---

interface Sources {
  images: readonly Uint8Array[];
  masks: readonly Uint8Array[];
}

async function editRequest(
  fields: JsonObject,
  { images, masks }: Sources,
  capabilities: Capabilities,
): Promise<EditRequest> {
  const [image] = images;
  if (image === undefined) {
    const message = "Missing required parameter: 'image'.";
    throw new OpenAiError(400, "missing_required_parameter", message, "image");
  }
  if (images.length > 1) throw invalidValue("image", "Only one image can be edited at once.");
  const size = await sizeOfImage(image);
  if (size === null) throw unreadable("image");
  const request = readImagesRequest(fields, capabilities, size);
  const [sent] = masks;
  if (sent === undefined) return { request, images: { image, mask: null } };
  const mask = await maskOf(sent, { from: "alpha", isInverted: true });
  if (mask === null) throw unreadable("mask");
  return { request, images: { image, mask } };
}

async function fileBytes(param: string, part: string | File): Promise<Uint8Array> {
  if (typeof part !== "string") return await part.bytes();
  throw invalidValue(param, `${param} must be a file.`);
}

function unreadable(param: string): OpenAiError {
  return invalidValue(param, `${param} cannot be read as an image.`);
}

const imageParts = new Set(["image", "image[]", "mask"]);

/** Values of JSON where a field is not a text: forms have texts alone. */
function fieldsOf(form: FormData): JsonObject {
  const names = [...new Set(form.keys())].filter((name) => !imageParts.has(name));
  return Object.fromEntries(
    names.map((name) => {
      const values = form.getAll(name).map((part) => fieldValue(name, part));
      const isList = name.endsWith("[]");
      return [isList ? name.slice(0, -2) : name, isList ? values : values.at(-1)];
    }),
  );
}

function fieldValue(name: string, part: string | File): unknown {
  if (typeof part !== "string") throw invalidValue(name, `${name} must be a text.`);
  if (texts.has(name)) return part;
  if (part === "true" || part === "false") return part === "true";
  return /^-?\d{1,15}(\.\d{1,15})?$/.test(part) ? Number(part) : part;
}

/** Fields that are texts even where they look like numbers. */
const texts = new Set(["prompt", "negative_prompt", "prompt_2", "negative_prompt_2", "user"]);
