/**
 * OpenAI's images API: /v1/images/generations, /v1/images/edits and /v1/models. A client that goes
 * away cancels its job.
 */
import { type Context, Hono } from "hono";
import { streamSSE } from "hono/streaming";
import type { JsonObject } from "../../../metadata/foreign-json.ts";
import type { Capabilities } from "../../capabilities.ts";
import type { ServeEnv } from "../../environment.ts";
import { filesOrNull } from "../../input-files.ts";
import type { JobService, JobSpec, JobView } from "../../jobs/types.ts";
import { keepOpen } from "../../open-connection.ts";
import { isForm } from "../../routes/job-form.ts";
import { formBody, jsonBody } from "../body.ts";
import { modelNamed } from "../listed-names.ts";
import type { DialectServices } from "../services.ts";
import { imagesAnswer, modelAnswer } from "./answers.ts";
import { readEditForm, readEditJson } from "./edits.ts";
import { withoutHints } from "./encoded-images.ts";
import { errorOfJob, invalidValue } from "./errors.ts";
import { type ImagesRequest, noModel, readImagesRequest } from "./request.ts";
import { cancelledJob, type EventKind, streamedImages } from "./stream.ts";

export function openAiRoutes({ jobs, capabilities }: DialectServices) {
  const app = new Hono<ServeEnv>().basePath("/v1");
  app.post("/images/generations", async (c) => {
    const { fields, hints } = withoutHints(await bodyOf(c));
    const request = readImagesRequest(fields, capabilities.current());
    const images = filesOrNull({ image: null, mask: null, ...hints });
    const job = await jobs.submit(specOf(c, request), images);
    return await answered(c, jobs, { job, request, kind: "image_generation" });
  });
  app.post("/images/edits", async (c) => {
    const { request, images } = await readEdit(c, capabilities.current());
    const job = await jobs.submit(specOf(c, request), images);
    return await answered(c, jobs, { job, request, kind: "image_edit" });
  });
  app.get("/models", (c) => {
    const data = capabilities.current().models.map(modelAnswer);
    return c.json({ object: "list", data });
  });
  app.get("/models/:id{.+}", (c) => {
    const id = c.req.param("id");
    const model = modelNamed(capabilities.current(), id);
    if (model === null) throw noModel(id);
    return c.json(modelAnswer(model));
  });
  return app;
}

// --- internal ---

interface Asked {
  job: JobView;
  request: ImagesRequest;
  kind: EventKind;
}

async function bodyOf(c: Context): Promise<JsonObject> {
  const body = await jsonBody(c);
  if (body !== null) return body;
  throw invalidValue("", "The body must be an object in JSON.");
}

async function readEdit(c: Context, lists: Capabilities) {
  if (!isForm(c)) return await readEditJson(await bodyOf(c), lists);
  const form = await formBody(c);
  if (form === null) throw invalidValue("", "The form cannot be read.");
  return await readEditForm(form, lists);
}

async function answered(c: Context, jobs: JobService, asked: Asked) {
  keepOpen(c);
  return asked.request.stream ? streamed(c, jobs, asked) : await whole(c, jobs, asked);
}

async function whole(c: Context, jobs: JobService, { job: { id }, request: { asked } }: Asked) {
  const { signal } = c.req.raw;
  const stop = () => void jobs.cancel(id);
  signal.addEventListener("abort", stop, { once: true });
  if (signal.aborted) stop();
  try {
    const job = await jobs.wait(id);
    if (job.error !== null) throw errorOfJob(job.error);
    if (job.state !== "done") throw errorOfJob(cancelledJob);
    const data = await Promise.all(
      job.images.map(async ({ index }) => {
        if (asked.format === "url") {
          return { url: new URL(`/api/v1/jobs/${id}/images/${index}`, c.req.url).href };
        }
        const bytes = await jobs.imageBytes(id, index);
        return { b64_json: Buffer.from(bytes).toString("base64") };
      }),
    );
    return c.json(imagesAnswer(job, asked, data));
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

function streamed(c: Context, jobs: JobService, { job, request, kind }: Asked) {
  return streamSSE(c, async (stream) => {
    const gone = new AbortController();
    stream.onAbort(() => {
      gone.abort();
      jobs.cancel(job.id);
    });
    for await (const { event, data } of streamedImages(jobs, job, request, kind, gone.signal)) {
      await stream.writeSSE({ event, data: JSON.stringify(data) });
    }
  });
}

function specOf(c: Context<ServeEnv>, { spec, asked }: ImagesRequest): JobSpec {
  return { ...spec, client: c.get("client"), dialectData: asked };
}
