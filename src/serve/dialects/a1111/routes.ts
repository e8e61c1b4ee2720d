/**
 * A1111's API: /sdapi/v1 and what its page asks below /internal. A client that goes away leaves its
 * job running, as in A1111.
 * Source: A1111 and Forge, modules/api/api.py and modules/progress.py.
 */
import { type Context, Hono } from "hono";
import type { JsonObject } from "../../../metadata/foreign-json.ts";
import type { ServeEnv } from "../../environment.ts";
import { keepOpen } from "../../open-connection.ts";
import { jsonBody } from "../body.ts";
import { ClientIds } from "../client-ids.ts";
import type { DialectServices } from "../services.ts";
import { imagesAnswer } from "./answers.ts";
import { controlModels, controlModules } from "./control-units.ts";
import { A1111Error, errorOfJob } from "./errors.ts";
import { enlargedImage } from "./extras.ts";
import { imageIn, readFields } from "./fields.ts";
import { readImageToImageRequest } from "./image-to-image.ts";
import type { JobData } from "./job-data.ts";
import {
  commandFlags,
  embeddingList,
  loraList,
  memoryReport,
  modelList,
  samplerList,
  upscalerList,
} from "./lists.ts";
import { LivePreviews } from "./live-previews.ts";
import { Options } from "./options.ts";
import { imageInfo } from "./png-info.ts";
import { pendingTasks, progressAnswer, shownJob, taskProgress } from "./progress.ts";
import { type Asked, readTextToImageRequest } from "./request.ts";
import { schedules } from "./schedules.ts";
import { latentUpscaleModes } from "./second-pass.ts";

export function a1111Routes(services: DialectServices) {
  const { jobs } = services;
  const shared = {
    ...services,
    options: new Options(),
    previews: new LivePreviews(jobs),
    ids: new ClientIds(jobs, "a1111", (data) => (data as JobData | undefined)?.taskId),
  };
  const app = new Hono<ServeEnv>();
  app.route("/sdapi/v1", jobRoutes(shared));
  app.route("/sdapi/v1", imageRoutes(shared));
  app.route("/sdapi/v1", listRoutes(shared));
  app.route("/internal", pageRoutes(shared));
  app.route("/controlnet", controlRoutes(shared));
  return app;
}

// --- internal ---

interface Shared extends DialectServices {
  options: Options;
  previews: LivePreviews;
  ids: ClientIds;
}

/** Throws `A1111Error` for a body that is no object. */
async function bodyOf(c: Context): Promise<JsonObject> {
  const body = await jsonBody(c);
  if (body !== null) return body;
  const problem = { loc: ["body"], msg: "value is not a valid dict", type: "type_error.dict" };
  throw new A1111Error(422, [problem]);
}

function jobRoutes({ jobs, capabilities, options, previews, ids }: Shared) {
  const app = new Hono<ServeEnv>();
  const ended = async (c: Context<ServeEnv>, asked: Asked) => {
    const { spec, images } = asked;
    const submitted = await jobs.submit({ ...spec, client: c.get("client") }, images);
    keepOpen(c);
    ids.add(submitted);
    void previews.follow(submitted);
    const job = await jobs.wait(submitted.id);
    // A job that was interrupted is answered with the images that are done.
    if (job.error !== null) throw errorOfJob(job.error);
    return c.json(await imagesAnswer(jobs, job, asked.fields, spec.dialectData));
  };
  app.post("/txt2img", async (c) => {
    const asked = readTextToImageRequest(await bodyOf(c), options, capabilities.current());
    return await ended(c, asked);
  });
  app.post("/img2img", async (c) => {
    const lists = capabilities.current();
    const asked = await readImageToImageRequest(await bodyOf(c), options, lists);
    return await ended(c, asked);
  });
  app.get("/progress", (c) => {
    const job = shownJob(jobs, c.get("client"));
    const isShort = readFields(progressFields, c.req.query()).skip_current_image;
    return c.json(progressAnswer(job, isShort ? null : previews, Date.now()));
  });
  const stop = (client: string) => {
    for (const { id } of jobs.list({ state: "running", client })) jobs.cancel(id);
  };
  app.post("/interrupt", (c) => {
    stop(c.get("client"));
    return c.json({});
  });
  app.post("/skip", (c) => {
    stop(c.get("client"));
    return c.json(null);
  });
  return app;
}

const progressFields = { skip_current_image: { kind: "flag", default: false } } as const;

function imageRoutes(services: DialectServices) {
  const app = new Hono<ServeEnv>();
  app.post("/extra-single-image", async (c) =>
    c.json(await enlargedImage(await bodyOf(c), services)),
  );
  app.post("/png-info", async (c) => {
    const { image } = readFields(pngInfoFields, await bodyOf(c));
    return c.json(imageInfo(imageIn(image)));
  });
  return app;
}

const pngInfoFields = { image: { kind: "text", default: "" } } as const;

function listRoutes({ capabilities, options }: Shared) {
  const app = new Hono<ServeEnv>();
  const lists = () => capabilities.current();
  app.get("/options", (c) => c.json(options.current(lists())));
  app.post("/options", async (c) => {
    options.set(await bodyOf(c), lists());
    return c.json(null);
  });
  app.get("/sd-models", (c) => c.json(modelList(lists())));
  app.get("/samplers", (c) => c.json(samplerList()));
  app.get("/schedulers", (c) => c.json(schedules));
  app.get("/loras", (c) => c.json(loraList(lists())));
  app.get("/embeddings", (c) => c.json(embeddingList(lists())));
  app.get("/upscalers", (c) => c.json(upscalerList(lists())));
  app.get("/memory", (c) => c.json(memoryReport()));
  app.get("/cmd-flags", (c) => c.json(commandFlags));
  app.get("/scripts", (c) => c.json({ txt2img: [], img2img: [] }));
  app.get("/latent-upscale-modes", (c) => c.json(latentUpscaleModes()));
  app.get("/sd-vae", (c) => {
    return c.json(lists().vaes.map(({ name }) => ({ model_name: name, filename: name })));
  });
  for (const name of ["prompt-styles", "script-info"]) {
    app.get(`/${name}`, (c) => c.json([]));
  }
  for (const name of ["face-restorers", "hypernetworks", "realesrgan-models", "extensions"]) {
    app.get(`/${name}`, (c) => c.json([]));
  }
  for (const name of ["checkpoints", "embeddings", "loras", "vae"]) {
    app.post(`/refresh-${name}`, async (c) => {
      await capabilities.refresh();
      return c.json(null);
    });
  }
  // Models come and go by themselves.
  for (const name of ["unload", "reload"]) app.post(`/${name}-checkpoint`, (c) => c.json({}));
  return app;
}

/** What clients of the ControlNet extension ask. */
function controlRoutes({ capabilities }: Shared) {
  const app = new Hono<ServeEnv>();
  app.get("/model_list", (c) => {
    return c.json({ model_list: controlModels(capabilities.current()) });
  });
  app.get("/module_list", (c) => c.json({ module_list: controlModules, module_detail: {} }));
  return app;
}

/** What A1111's own page and some clients ask. */
function pageRoutes({ jobs, previews, ids }: Shared) {
  const app = new Hono<ServeEnv>();
  app.get("/ping", (c) => c.json({}));
  app.get("/pending-tasks", (c) => c.json(pendingTasks(jobs)));
  app.post("/progress", async (c) => {
    const fields = readFields(taskFields, await bodyOf(c));
    const asked = {
      job: fields.id_task === null ? null : ids.job(fields.id_task),
      previewNumber: Number(fields.id_live_preview),
      wantsPreview: fields.live_preview,
    };
    return c.json(taskProgress(jobs, previews, asked, Date.now()));
  });
  return app;
}

const taskFields = {
  id_task: { kind: "text", default: null },
  id_live_preview: { kind: "whole", default: -1 },
  live_preview: { kind: "flag", default: true },
} as const;
