/**
 * ComfyUI's API, also below /api: prompts become jobs of this server.
 * Source: ComfyUI, server.py.
 */
import { type Context, Hono } from "hono";
import { upgradeWebSocket } from "hono/bun";
import type { ServeEnv } from "../../environment.ts";
import { formBody, jsonBody } from "../body.ts";
import type { DialectServices } from "../services.ts";
import { Images, UploadRefused } from "./images.ts";
import type { NodeLists } from "./input-types.ts";
import { objectInfo } from "./object-info.ts";
import { PromptQueue } from "./prompt-queue.ts";
import { features, Sockets } from "./sockets.ts";
import { modelFolder, modelFolders, systemStats } from "./system.ts";
import { Uploads } from "./uploads.ts";
import { viewImage } from "./view.ts";

export function comfyUiRoutes(services: DialectServices) {
  const uploads = new Uploads(services.folder);
  const images = new Images(services.jobs, uploads);
  const lists = async (): Promise<NodeLists> => {
    return { ...services.capabilities.current(), inputImages: await uploads.names() };
  };
  const routes = promptRoutes(services, images, lists)
    .route("/", imageRoutes(images))
    .route("/", infoRoutes(services, lists));
  const app = new Hono<ServeEnv>();
  app.route("/", routes);
  app.route("/api", routes);
  return app;
}

// --- internal ---

type Lists = () => Promise<NodeLists>;

function promptRoutes({ jobs, upscaling }: DialectServices, images: Images, lists: Lists) {
  const app = new Hono<ServeEnv>();
  const sockets = new Sockets(jobs);
  const queue = new PromptQueue(jobs, images, upscaling);
  app.get(
    "/ws",
    async (c, next) => {
      if (c.req.header("Upgrade")?.toLowerCase() === "websocket") return await next();
      return c.text('Can "Upgrade" only to "WebSocket".', 400);
    },
    upgradeWebSocket((c) => {
      const id = c.req.query("clientId") || crypto.randomUUID().replaceAll("-", "");
      return {
        onOpen: (_, socket) => sockets.open(id, socket),
        onMessage: ({ data }) => sockets.receive(id, data),
        onClose: (_, socket) => sockets.close(id, socket),
      };
    }),
  );
  app.get("/prompt", (c) => c.json(sockets.queueInfo()));
  app.post("/prompt", async (c) => {
    const body = await jsonBody(c);
    return c.json(await queue.submit(body, c.get("client"), await lists()));
  });
  app.get("/queue", (c) => c.json(queue.items()));
  app.post("/queue", async (c) => {
    queue.change((await jsonBody(c)) ?? {}, c.get("client"));
    return c.body(null, 200);
  });
  app.post("/interrupt", async (c) => {
    queue.interrupt((await jsonBody(c)) ?? {}, c.get("client"));
    return c.body(null, 200);
  });
  app.get("/history", (c) => c.json(queue.history(c.req.query())));
  app.get("/history/:id", (c) => c.json(queue.historyOf(c.req.param("id"))));
  app.post("/history", async (c) => {
    queue.forget((await jsonBody(c)) ?? {});
    return c.body(null, 200);
  });
  return app;
}

function imageRoutes(images: Images) {
  const app = new Hono<ServeEnv>();
  app.get("/view", async (c) => {
    const found = await viewImage(images, c.req.query());
    if (found === null) return c.body(null, 404);
    const { bytes, type } = found;
    return c.body(bytes as Uint8Array<ArrayBuffer>, 200, { "Content-Type": type });
  });
  const answered = async (c: Context, take: (form: FormData | null) => Promise<object>) => {
    try {
      return c.json(await take(await formBody(c)));
    } catch (error) {
      if (error instanceof UploadRefused) return c.text(error.message, 400);
      throw error;
    }
  };
  app.post("/upload/image", (c) => answered(c, (form) => images.upload(form)));
  app.post("/upload/mask", (c) => answered(c, (form) => images.uploadMask(form)));
  return app;
}

function infoRoutes({ capabilities }: DialectServices, lists: Lists) {
  const app = new Hono<ServeEnv>();
  app.get("/object_info", async (c) => c.json(objectInfo(await lists())));
  app.get("/object_info/:name", async (c) => {
    return c.json(objectInfo(await lists(), c.req.param("name")));
  });
  app.get("/system_stats", (c) => c.json(systemStats(capabilities.current())));
  app.get("/features", (c) => c.json(features));
  app.get("/extensions", (c) => c.json([]));
  app.get("/models", (c) => c.json(modelFolders));
  app.get("/models/:folder", (c) => {
    const names = modelFolder(c.req.param("folder"), capabilities.current());
    return names === null ? c.body(null, 404) : c.json(names);
  });
  app.get("/embeddings", (c) => {
    return c.json(capabilities.current().embeddings.map(({ name }) => name));
  });
  app.post("/free", (c) => c.body(null, 200));
  return app;
}
