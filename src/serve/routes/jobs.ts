/**
 * The own API: jobs and their events.
 */
import { sValidator } from "@hono/standard-validator";
import { Hono } from "hono";
import { streamSSE } from "hono/streaming";
import * as v from "valibot";
import { imageFormats } from "../../image/encoder.ts";
import { requestSchema } from "../../settings/request-schema.ts";
import { HttpError, type ServeEnv } from "../environment.ts";
import type { JobEvent, JobService, JobView } from "../jobs/types.ts";

/** A job as it is asked for. */
const specSchema = v.strictObject({
  request: requestSchema,
  model: v.optional(v.string()),
  priority: v.optional(v.pipe(v.number(), v.integer(), v.minValue(-10), v.maxValue(10))),
  preview_steps: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(1000))),
  format: v.optional(v.picklist(imageFormats)),
  quality: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(100))),
});

export function jobRoutes(service: JobService) {
  const app = new Hono<ServeEnv>().basePath("/api/v1");
  const found = (id: string): JobView => {
    const job = service.get(id);
    if (job === null) throw new HttpError(404, "not-found", "There is no job of this id.");
    return job;
  };
  app.post("/jobs", sValidator("json", specSchema, refuseInvalid), (c) => {
    const { preview_steps: previewSteps, ...spec } = c.req.valid("json");
    const client = c.get("client");
    const job = service.submit({ ...spec, previewSteps, client, dialect: "own" });
    c.header("Location", `/api/v1/jobs/${job.id}`);
    return c.json(jobJson(job), 202);
  });
  app.get("/jobs/:id", (c) => c.json(jobJson(found(c.req.param("id")))));
  app.delete("/jobs/:id", (c) => {
    const { id } = found(c.req.param("id"));
    service.cancel(id);
    return c.json(jobJson(found(id)));
  });
  app.get("/jobs/:id/images/:index", async (c) => {
    const job = found(c.req.param("id"));
    const image = job.images.find(({ index }) => String(index) === c.req.param("index"));
    if (!image) throw new HttpError(404, "not-found", "The job has no such image (yet).");
    const bytes = await service.imageBytes(job.id, image.index);
    return c.body(bytes as Uint8Array<ArrayBuffer>, 200, { "Content-Type": image.type });
  });
  app.get("/jobs/:id/events", (c) => {
    const { id } = found(c.req.param("id"));
    const after = Number(c.req.header("Last-Event-ID") ?? 0) || 0;
    return streamSSE(c, async (stream) => {
      for await (const event of service.events(id, after, c.req.raw.signal)) {
        await stream.writeSSE({
          id: String(event.id),
          event: event.type,
          data: JSON.stringify(eventJson(event)),
        });
      }
    });
  });
  return app;
}

// --- internal ---

/** A whole sentence about the first thing that is wrong. */
function refuseInvalid(result: { success: boolean; error?: readonly { message: string }[] }) {
  if (result.success) return;
  throw new HttpError(400, "bad-option", result.error?.[0]?.message ?? "The body is not valid.");
}

/** Seeds do not fit JSON's numbers. */
function jobJson({ spec: { request, dialectData: _, ...spec }, ...job }: JobView) {
  const shown = Object.entries(request).map(([key, value]) => {
    return [key, typeof value === "bigint" ? String(value) : value];
  });
  return { ...job, spec: { ...spec, request: Object.fromEntries(shown) } };
}

function eventJson(event: JobEvent) {
  if (event.type !== "preview") return event;
  return { ...event, data: Buffer.from(event.data).toString("base64") };
}
