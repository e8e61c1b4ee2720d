/**
 * The own API: an image as the hint that a ControlNet would be given, made as a job makes it.
 */
import { Hono } from "hono";
import { readImage } from "../../image/read.ts";
import { resized } from "../../image/transform.ts";
import { encodeFile } from "../../image.ts";
import { makeHint } from "../../networks/hints.ts";
import { JobQueue } from "../../pipeline/queue.ts";
import type { ServeEnv } from "../environment.ts";
import { checkPixels } from "../inputs.ts";
import { hintQuery } from "../schemas.ts";
import type { ServeConfig } from "../settings.ts";
import { valid } from "./json.ts";

export function hintRoutes({ config }: { config: Pick<ServeConfig, "maxPixels"> }) {
  const app = new Hono<ServeEnv>().basePath("/api/v1");
  /** One at a time: each image may take hundreds of megabytes. */
  const making = new JobQueue();
  app.post("/hints", valid("query", hintQuery), async (c) => {
    const { preprocess, width, height } = c.req.valid("query");
    const bytes = new Uint8Array(await c.req.arrayBuffer());
    await checkPixels(bytes, config.maxPixels);
    const hint = await making.run(c.req.raw.signal, async () => {
      const options = { name: "The body", channels: 3, background: "#000000" } as const;
      const fitted = await resized(await readImage(bytes, options), { width, height }, "cover");
      return await makeHint(fitted, preprocess);
    });
    const file = await encodeFile("png", hint);
    return c.body(file.bytes as Uint8Array<ArrayBuffer>, 200, { "Content-Type": "image/png" });
  });
  return app;
}
