/**
 * The own API: the gallery. It shows the files of the folder of outputs, and what they say of
 * themselves; a file that is deleted is gone.
 */
import { createHash } from "node:crypto";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { type Context, Hono } from "hono";
import { BasedXLError, badOption } from "../../errors.ts";
import { thumbnailOf } from "../../image/thumbnail.ts";
import type { RecalledSettings } from "../../metadata/recipe.ts";
import { inspectImage } from "../../metadata.ts";
import { requestToJson } from "../../settings/request-schema.ts";
import { requestKeys, settingOf } from "../../settings/table.ts";
import type { Catalog } from "../catalog.ts";
import type { CatalogModel } from "../catalog-model.ts";
import { HttpError, type ServeEnv } from "../environment.ts";
import type { Outputs } from "../outputs.ts";
import { rankRows } from "../rank-rows.ts";
import { imagesQuery } from "../schemas.ts";
import { valid } from "./json.ts";
import { unchanged } from "./unchanged.ts";

interface GalleryOptions {
  outputs: Outputs;
  catalog: Catalog;
  /** Called with the name of a file that is no more. */
  onRemove: (name: string) => void;
}

export function imageRoutes({ outputs, catalog, onRemove }: GalleryOptions) {
  const app = new Hono<ServeEnv>().basePath("/api/v1");
  const found = (c: Context<ServeEnv, "/images/:name">) => {
    const name = c.req.param("name");
    const path = outputs.pathOf(name);
    if (path === null) throw new HttpError(404, "not-found", "There is no image of this name.");
    return { name, path };
  };
  app.get("/images", valid("query", imagesQuery), async (c) => {
    return c.json({ images: await outputs.list(c.req.valid("query")) });
  });
  app.get("/images/:name", async (c) => {
    const { path } = found(c);
    return await fileResponse(c, path);
  });
  app.get("/images/:name/thumbnail", async (c) => {
    const { path } = found(c);
    const thumbnail = await thumbnailOf(path, thumbnailSide);
    if (thumbnail === null) return await fileResponse(c, path);
    c.header("Cache-Control", "private, max-age=86400");
    const { bytes, type } = thumbnail;
    return c.body(bytes as Uint8Array<ArrayBuffer>, 200, { "Content-Type": type });
  });
  app.get("/images/:name/metadata", (c) => {
    const { path } = found(c);
    return c.json(metadataOf(path, catalog));
  });
  app.delete("/images/:name", async (c) => {
    const { name, path } = found(c);
    await outputs.remove(path);
    onRemove(name);
    return c.body(null, 204);
  });
  app.post("/metadata", async (c) => {
    const bytes = await c.req.arrayBuffer();
    if (bytes.byteLength === 0) throw badOption("The body must be the bytes of an image.");
    const path = join(outputs.folder, `.basedxl-${crypto.randomUUID()}.tmp`);
    try {
      await Bun.write(path, bytes);
      return c.json(metadataOf(path, catalog));
    } finally {
      await rm(path, { force: true });
    }
  });
  return app;
}

// --- internal ---

const thumbnailSide = 320;

/** Files never change under their name, but for those that people put there. */
async function fileResponse(c: Context, path: string): Promise<Response> {
  const file = Bun.file(path);
  const { size, mtimeMs } = await file.stat();
  const hash = createHash("sha256").update(`${size} ${mtimeMs}`).digest("hex").slice(0, 16);
  const headers = { "Content-Type": file.type, "Content-Length": `${size}` };
  return unchanged(c, `"${hash}"`) ?? c.body(file.stream(), 200, headers);
}

/** What the image says, in the settings of a request; files by names of the catalog. */
function metadataOf(path: string, catalog: Catalog) {
  const { recipe, parameters = null, problems } = inspectedImage(path);
  const warnings = problems.map((problem) => `Of the image, ${problem}.`);
  if (recipe === null) {
    return { tool: null, parameters, ...noModels, request: {}, ...noRows, warnings };
  }
  const { settings, loras, model, refiner, tool } = recipe;
  const listed = loras.map(({ name, scale, textScale }) => ({ file: name, scale, textScale }));
  const all = [...(settings.loras ?? []), ...listed];
  const request = requestToJson({ ...settings, ...(all.length > 0 && { loras: all }) });
  const names = { model: model?.name, refiner: refiner?.name };
  const known = model && modelOf(names, catalog);
  if (model !== null && !known) {
    warnings.push("The server does not have the image's model, or its refiner.");
  }
  return {
    ...{ tool, parameters, model: names.model ?? null, refiner: names.refiner ?? null, request },
    ...(known ? rowsOf(settings, known, catalog) : noRows),
    warnings: [...recipe.warnings, ...warnings],
  };
}

const noModels = { model: null, refiner: null };
const noRows = { rows: null, unguidedRows: null };

/** null where the server lacks one of them. */
function modelOf(names: Parameters<Catalog["model"]>[0], catalog: Catalog): CatalogModel | null {
  try {
    return catalog.model(names);
  } catch (error) {
    if (error instanceof BasedXLError) return null;
    throw error;
  }
}

/** As the image's settings are planned here; none where they cannot be, or of a part of it. */
function rowsOf(settings: RecalledSettings, model: CatalogModel, catalog: Catalog) {
  const { rankCount, loras: _, seed: __, maskArea, ...request } = settings;
  if (rankCount === undefined || maskArea === "masked") return noRows;
  // The image that it started from is not there.
  for (const key of inputKeys) delete request[key as keyof typeof request];
  try {
    const { batches, settings: planned } = catalog.plan(model, request, { rankCount });
    return rankRows(batches[0]!.layout, planned.height);
  } catch {
    return noRows;
  }
}

const inputKeys = requestKeys.filter((key) => settingOf(key).group === "Input image");

/** Without the path, which is the server's own affair. */
function inspectedImage(path: string) {
  try {
    return inspectImage(path);
  } catch {
    throw badOption("This is no image in a format that is read: PNG, JPEG, WebP and AVIF are.");
  }
}
