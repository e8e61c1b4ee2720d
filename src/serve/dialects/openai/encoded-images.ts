/**
 * Images in the JSON of requests: those of OpenAI's own fields, and what networks of this program
 * read.
 */
import { isObject, type JsonObject } from "../../../metadata/foreign-json.ts";
import type { InputImages } from "../../jobs/types.ts";
import { decodedBase64 } from "../image-bytes.ts";
import { invalidValue } from "./errors.ts";

/** Images in base64, `data:` addresses, or objects of them; one, or a list. */
export function encodedIn(param: string, sent: unknown): Uint8Array[] {
  if (sent === undefined || sent === null) return [];
  if (Array.isArray(sent)) return sent.flatMap((each) => encodedIn(param, each));
  const text = isObject(sent) ? (sent.image_url ?? sent.b64_json) : sent;
  const isAddress = typeof text === "string" && /^https?:/i.test(text);
  const bytes = typeof text === "string" && !isAddress ? decodedBase64(text) : null;
  if (bytes !== null) return [bytes];
  throw invalidValue(
    param,
    `${param} must be an image in base64 or a data: address of one: nothing is fetched from \
elsewhere, and there are no files by an id.`,
  );
}

/** The fields but for those of images that networks read, by the names of the own API. */
export function withoutHints(body: JsonObject): {
  fields: JsonObject;
  hints: Pick<InputImages, "controlImages" | "ipImages">;
} {
  const { control_images: hints, ip_images: seen, ...fields } = body;
  const controlImages = encodedIn("control_images", hints);
  return { fields, hints: { controlImages, ipImages: encodedIn("ip_images", seen) } };
}
