/**
 * Messages from Redis, checked: another version of the program may have written them, or somebody
 * else. null for what is no such message.
 */
import * as v from "valibot";
import type { Announcement, Notice, Outcome, Report } from "./messages.ts";

export function noticeOf(text: string): Notice | null {
  return jsonAs(notice, text);
}

export function announcementOf(text: string): Announcement | null {
  return jsonAs(announcement, text);
}

export function reportOf(data: unknown): Report | null {
  return as(report, data);
}

export function outcomeOf(data: unknown): Outcome | null {
  return as(outcome, data);
}

// --- internal ---

const text = v.string();
const number = v.pipe(v.number(), v.finite());
const whole = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

const notice = v.variant("type", [
  v.object({ type: v.picklist(["added", "workers"]) }),
  v.object({ type: v.literal("cancel"), id: text }),
]);

const announcement = v.object({ models: v.record(text, text), places: whole });

const image = v.object({
  ...{ index: whole, seed: text, width: whole, height: whole, file: text, bytes: whole },
  type: text,
});
const error = v.object({ code: text, message: text });

const report = v.variant("type", [
  v.object({ type: v.literal("image"), image }),
  v.object({
    ...{ type: v.literal("preview"), index: whole, step: whole, type_: v.literal("image/jpeg") },
    data: v.pipe(text, v.base64()),
  }),
  v.object({
    ...{ type: v.literal("progress"), stage: text, step: whole, steps: whole },
    ...{ secondsPerStep: v.nullable(number), secondsLeft: v.nullable(number) },
    pass: v.optional(v.object({ index: whole, count: whole })),
  }),
  v.object({ type: v.literal("queued"), position: whole }),
  v.object({ type: v.literal("start"), layout: text }),
  v.object({ type: v.literal("warning"), message: text }),
  v.object({ type: v.literal("done") }),
  v.object({ type: v.literal("failed"), ...error.entries }),
  v.object({ type: v.literal("cancelled"), by: text }),
]);

const outcome = v.object({
  state: v.picklist(["done", "failed", "cancelled"]),
  ...{ images: v.array(image), warnings: v.array(text), error: v.nullable(error) },
});

function as<Schema extends v.GenericSchema>(schema: Schema, data: unknown) {
  const result = v.safeParse(schema, data);
  return result.success ? result.output : null;
}

function jsonAs<Schema extends v.GenericSchema>(schema: Schema, json: string) {
  try {
    return as(schema, JSON.parse(json));
  } catch {
    return null;
  }
}
