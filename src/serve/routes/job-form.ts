/**
 * A job as a form of several parts: what a body in JSON has in the part `job`, and files of the
 * image to start from, its mask, hints, and what IP-Adapters see.
 */
import type { Context } from "hono";
import * as v from "valibot";
import { badOption } from "../../errors.ts";
import { jobFormSchema } from "../schemas.ts";
import { refused } from "./json.ts";

export function isForm(c: Context): boolean {
  return /^multipart\/form-data\b/i.test(c.req.header("Content-Type") ?? "");
}

/** Rejects with what is wrong. */
export async function readForm(c: Context) {
  const form = await c.req.formData().catch(() => null);
  if (form === null) throw badOption("The form cannot be read.");
  const result = v.safeParse(jobFormSchema, jsonOf(form.get("job")));
  if (!result.success) throw refused(result.issues);
  const [image = null] = await filesOf(form, "image");
  const [mask = null] = await filesOf(form, "mask");
  const controlImages = await filesOf(form, "control_image");
  const ipImages = await filesOf(form, "ip_image");
  return { job: result.output, image, mask, controlImages, ipImages };
}

// --- internal ---

function jsonOf(part: string | File | null): unknown {
  try {
    if (typeof part === "string") return JSON.parse(part);
  } catch {}
  throw badOption("A form has a part job, a text in JSON.");
}

async function filesOf(form: FormData, name: string): Promise<Uint8Array[]> {
  const parts = form.getAll(name).map(async (part) => {
    if (typeof part === "string") throw badOption(`${name} must be a file.`);
    return await part.bytes();
  });
  return await Promise.all(parts);
}
