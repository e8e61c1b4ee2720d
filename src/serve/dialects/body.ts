/**
 * Bodies of requests in JSON, as other programs send them: whole numbers of 64 bits stay exact (as
 * texts of digits), and what is no object is null.
 */
import type { Context } from "hono";
import { type JsonObject, parseForeign } from "../../metadata/foreign-json.ts";

/** Images in base64 may be in it; the server's limit of a request comes first. */
const lengthMax = 2 ** 28;

/** The object that the body is; an empty one for an empty body, null for anything else. */
export async function jsonBody(c: Context): Promise<JsonObject | null> {
  const text = await c.req.text();
  return text.trim() === "" ? {} : parseForeign(text, lengthMax);
}

/** The parts of a form; null for anything else. */
export async function formBody(c: Context): Promise<FormData | null> {
  try {
    return await c.req.formData();
  } catch {
    return null;
  }
}
