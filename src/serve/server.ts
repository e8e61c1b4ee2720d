/**
 * `basedxl serve`: opens the model, listens, and runs jobs until it is told to stop.
 */
import { websocket } from "hono/bun";
import { Pipeline } from "../pipeline.ts";
import { createApp } from "./app.ts";
import { type Capabilities, fixedCapabilities } from "./capabilities.ts";
import { SimpleService } from "./jobs/service.ts";

interface ServeOptions {
  host: string;
  port: number;
  outputs: string;
  model: string | undefined;
}

/** Resolves when the server listens. */
export async function startServer({ host, port, outputs, model }: ServeOptions) {
  const pipeline = await Pipeline.open({ model });
  const service = new SimpleService(pipeline, outputs);
  const fixed = fixedCapabilities();
  const { defaults, nativeSize, sizeMultiple, name } = pipeline.model;
  const current: Capabilities = {
    version: "",
    models: [
      {
        ...{ id: name, name, isDefault: true, sha256: null, ...nativeSize, sizeMultiple },
        defaults: {
          steps: defaults.steps ?? 50,
          guidanceScale: defaults.guidanceScale ?? 5,
          sampler: null,
          prompt: defaults.prompt ?? null,
        },
      },
    ],
    ...{ loras: [], embeddings: [], sizes: [{ ...nativeSize, ratio: "1:1" }] },
    ...fixed,
    formats: ["png", "jpeg", "webp", "avif"],
    features: { img2img: false, inpaint: false, controlnet: false, previews: true },
    limits: { queue: 16, images: 1000 },
    ranks: { count: 1, share: "1" },
  };
  const capabilities = { current: () => current, etag: () => '"0"', refresh: async () => {} };
  const clientOf = () => "local";
  const app = createApp({ service, capabilities, clientOf });
  const server = Bun.serve({ hostname: host, port, fetch: app.fetch, websocket });
  return {
    url: String(server.url),
    async stop() {
      await server.stop(true);
      await pipeline.close();
    },
  };
}
