/**
 * The own API: jobs and their events.
 */
import { type Context, Hono } from "hono";
import { streamSSE } from "hono/streaming";
import { badOption } from "../../errors.ts";
import { HttpError, type ServeEnv } from "../environment.ts";
import { filesOrNull, mapFiles } from "../input-files.ts";
import type { InputImages, JobEvent, JobService, JobView } from "../jobs/types.ts";
import { keepOpen } from "../open-connection.ts";
import { cancelSchema, jobsQuery, specSchema } from "../schemas.ts";
import { isForm, readForm } from "./job-form.ts";
import { eventJson, jobJson, valid } from "./json.ts";

export function jobRoutes(service: JobService) {
  const app = new Hono<ServeEnv>().basePath("/api/v1");
  const found = (id: string): JobView => {
    const job = service.get(id);
    if (job === null) throw new HttpError(404, "not-found", "There is no job of this id.");
    return job;
  };
  const taken = async (c: Context<ServeEnv>, { job: given, ...images }: GivenJob) => {
    const { preview_steps: previewSteps, ...rest } = given;
    const spec = { ...rest, previewSteps, client: c.get("client"), dialect: "own" } as const;
    if (images.image === null && images.mask !== null) throw badOption("A mask needs an image.");
    const job = await service.submit(spec, filesOrNull(images));
    c.header("Location", `/api/v1/jobs/${job.id}`);
    return c.json(jobJson(job), 202);
  };
  app.post(
    "/jobs",
    async (c, next) => (isForm(c) ? await taken(c, await readForm(c)) : await next()),
    valid("json", specSchema),
    async (c) => {
      const { image = null, mask = null, ...rest } = c.req.valid("json");
      const { control_images: controlImages = [], ip_images: ipImages = [], ...job } = rest;
      const given = { image, mask, controlImages, ipImages };
      return await taken(c, { job, ...mapFiles(given, bytesOf) });
    },
  );
  app.get("/jobs", valid("query", jobsQuery), (c) => {
    return c.json({ jobs: service.list(c.req.valid("query")).map(jobJson) });
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
    const job = found(c.req.param("id"));
    return eventStream(c, (after, signal) => service.events(job.id, after, signal));
  });
  app.get("/events", (c) => {
    return eventStream(c, (after, signal) => service.events("all", after, signal));
  });
  app.post("/cancel", valid("json", cancelSchema), (c) => {
    const { what, mine = false } = c.req.valid("json");
    const client = mine ? c.get("client") : undefined;
    const count = what === "rest" ? service.cancelRest(client) : service.cancelAll(client);
    return c.json({ cancelled: count });
  });
  return app;
}

// --- internal ---

type GivenJob = Pick<Awaited<ReturnType<typeof readForm>>, "job"> & InputImages;

/** Also of the address that a browser makes of a file. */
function bytesOf(base64: string): Uint8Array {
  return Buffer.from(base64.replace(/^data:[^,]{0,100},/, ""), "base64");
}

/** A sign of life for proxies, and a test whether the client is still there. */
const heartbeatMs = 15_000;

type Events = (afterId: number | undefined, signal: AbortSignal) => AsyncIterable<JobEvent>;

function eventStream(c: Context<ServeEnv>, events: Events): Response {
  const header = c.req.header("Last-Event-ID");
  if (header !== undefined && !/^\d{1,15}$/.test(header)) {
    throw new HttpError(400, "bad-option", "Last-Event-ID must be the id of an event.");
  }
  const after = header === undefined ? undefined : Number(header);
  c.header("X-Accel-Buffering", "no");
  if (c.req.method === "HEAD") {
    // Nobody would read a stream, which then would never end.
    const headers = { "Content-Type": "text/event-stream", "Cache-Control": "no-cache" };
    return c.body(null, 200, headers);
  }
  keepOpen(c);
  return streamSSE(c, async (stream) => {
    const controller = new AbortController();
    stream.onAbort(() => controller.abort());
    // The first one brings the headers: without it a client of a quiet server waits for them.
    await stream.write(": \n\n");
    const heartbeat = setInterval(() => void stream.write(": \n\n"), heartbeatMs);
    try {
      for await (const event of events(after, controller.signal)) {
        await stream.writeSSE({
          id: String(event.id),
          event: event.type,
          data: JSON.stringify(eventJson(event)),
        });
      }
    } finally {
      clearInterval(heartbeat);
    }
  });
}
