/**
 * A request to edit an image as OpenAI's clients send it, a form of several parts: the fields of a
 * request for images, the image, and a mask whose transparent pixels are made anew.
 * Source: the types of OpenAI's npm package, resources/images (ImageEditParams) and its uploads.
 */
import type { JsonObject } from "../../../metadata/foreign-json.ts";
import type { Capabilities } from "../../capabilities.ts";
import type { InputImages } from "../../jobs/types.ts";
import { sizeOfImage } from "../image-bytes.ts";
import { maskOf } from "../mask-bytes.ts";
import { invalidValue, OpenAiError } from "./errors.ts";
import { type ImagesRequest, readImagesRequest } from "./request.ts";

interface EditRequest {
  request: ImagesRequest;
  images: InputImages;
}

/** Rejects with `OpenAiError`. */
export async function readEditRequest(
  form: FormData,
  capabilities: Capabilities,
): Promise<EditRequest> {
  const sources = [...form.getAll("image"), ...form.getAll("image[]")];
  const [source] = sources;
  if (source === undefined) {
    const message = "Missing required parameter: 'image'.";
    throw new OpenAiError(400, "missing_required_parameter", message, "image");
  }
  if (sources.length > 1) throw invalidValue("image", "Only one image can be edited at once.");
  const image = await bytesOf("image", source);
  const size = await sizeOfImage(image);
  if (size === null) throw unreadable("image");
  const request = readImagesRequest(fieldsOf(form), capabilities, size);
  const sentMask = form.get("mask");
  if (sentMask === null) return { request, images: { image, mask: null } };
  const sent = await bytesOf("mask", sentMask);
  const mask = await maskOf(sent, { from: "alpha", isInverted: true });
  if (mask === null) throw unreadable("mask");
  return { request, images: { image, mask } };
}

// --- internal ---

async function bytesOf(param: string, part: string | File): Promise<Uint8Array> {
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
