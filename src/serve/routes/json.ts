/**
 * Jobs and events in JSON, and bodies and queries checked with a whole sentence for what is wrong.
 */
import { sValidator } from "@hono/standard-validator";
import type { ValidationTargets } from "hono";
import type * as v from "valibot";
import { requestToJson } from "../../settings/request-schema.ts";
import { HttpError } from "../environment.ts";
import type { JobEvent, JobView } from "../jobs/types.ts";

/** Refuses with 400 what the schema does not accept. */
export function valid<Schema extends v.GenericSchema, Target extends keyof ValidationTargets>(
  target: Target,
  schema: Schema,
) {
  return sValidator(target, schema, (result, c) => {
    if (result.success) return;
    if (target === "json") checkType(c.req.header("Content-Type") ?? "");
    throw refused(result.error);
  });
}

/** The error of the first of a schema's issues. */
export function refused([issue]: readonly Issue[]): HttpError {
  const path = (issue?.path ?? []).map((part) => String(keyOf(part))).join(".");
  const message = issue?.message ?? "The body is not valid.";
  return new HttpError(400, "bad-option", sentenceOf(path, message));
}

/** Settings by the names of fields. What a dialect keeps is its own. */
export function jobJson({ spec: given, ...job }: JobView) {
  const { request, dialectData: _, inputs: __, ...spec } = given;
  return { ...job, spec: { ...spec, request: requestToJson(request) } };
}

/** The bytes of a preview in base64. */
export function eventJson(event: JobEvent): unknown {
  if (event.type !== "preview") return event;
  return { ...event, data: Buffer.from(event.data).toString("base64") };
}

// --- internal ---

interface Issue {
  message: string;
  path?: readonly unknown[] | undefined;
}

/** A body of another type is not read, whatever it holds: forms may come from any page. */
function checkType(type: string): void {
  if (/^application\/([a-z.-]+\+)?json\b/i.test(type)) return;
  const shown = type === "" ? "none" : JSON.stringify(type.slice(0, 100));
  throw new HttpError(
    400,
    "bad-request",
    `The body must be JSON with the Content-Type application/json, which is ${shown}.`,
  );
}

function sentenceOf(path: string, message: string): string {
  // Those of settings are sentences already, and end so.
  if (/[.?]$/.test(message)) return message;
  if (/^Invalid key: .* but received undefined$/.test(message)) return `${path} is missing.`;
  const extra = /^Invalid key: Expected never but received (".*")$/s.exec(message)?.[1];
  return extra === undefined ? `${path || "The body"}: ${message}.` : `There is no field ${extra}.`;
}

function keyOf(part: unknown): unknown {
  return typeof part === "object" && part !== null && "key" in part ? part.key : part;
}
