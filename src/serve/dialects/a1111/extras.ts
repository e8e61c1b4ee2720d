/**
 * A1111's extras without models: an image enlarged by a filter.
 * Source: A1111 and Forge, modules/api/models.py (ExtrasBaseRequest) and
 * scripts/postprocessing_upscale.py.
 */
import { BasedXLError } from "../../../errors.ts";
import type { Size } from "../../../image/encoder.ts";
import type { JsonObject } from "../../../metadata/foreign-json.ts";
import { converted, pixelsMax, sizeOfImage } from "../image-bytes.ts";
import { notThere, unreadableImage } from "./errors.ts";
import { badField, imageIn, readFields } from "./fields.ts";
import { upscalers } from "./lists.ts";

/** POST /sdapi/v1/extra-single-image. Throws `A1111Error`. */
export async function enlargedImage(
  body: JsonObject,
): Promise<{ html_info: string; image: string }> {
  const fields = readFields(extraFields, body);
  refuseMissing(fields);
  const bytes = imageIn(fields.image);
  const size = await sizeOfImage(bytes);
  if (size === null) throw unreadableImage();
  const { width, height } = fields.upscaler_1 === "None" ? size : wantedSize(fields, size);
  const sides = [width, height];
  if (sides.some((side) => side < 1 || side > sideMax) || width * height > pixelsMax) {
    throw badField("upscaling_resize", `${width}x${height} is too large`);
  }
  const isSame = width === size.width && height === size.height;
  const kernel = fields.upscaler_1 === "Nearest" ? "nearest" : "lanczos3";
  const crop = fields.resize_mode === 1 && fields.upscaling_crop;
  const image = await converted(bytes, {
    format: "png",
    ...(isSame ? {} : { width, height, kernel, crop }),
  }).catch((error: unknown) => {
    // The header was whole: what is behind it is not.
    throw error instanceof BasedXLError ? error : unreadableImage();
  });
  return { html_info: "", image: Buffer.from(image).toString("base64") };
}

// --- internal ---

const sideMax = 16_384;

const extraFields = {
  image: { kind: "text", default: "" },
  resize_mode: { kind: "whole", default: 0 },
  gfpgan_visibility: { kind: "number", default: 0 },
  codeformer_visibility: { kind: "number", default: 0 },
  upscaling_resize: { kind: "number", default: 2 },
  upscaling_resize_w: { kind: "whole", default: 512 },
  upscaling_resize_h: { kind: "whole", default: 512 },
  upscaling_crop: { kind: "flag", default: true },
  upscaler_1: { kind: "text", default: "None" },
  upscaler_2: { kind: "text", default: "None" },
  extras_upscaler_2_visibility: { kind: "number", default: 0 },
} as const;

type ExtraFields = ReturnType<typeof readFields<typeof extraFields>>;

function refuseMissing(fields: ExtraFields): void {
  if (fields.gfpgan_visibility > 0 || fields.codeformer_visibility > 0) {
    throw notThere("Restoring of faces");
  }
  const names = upscalers.map(({ name }) => name);
  if (!names.includes(fields.upscaler_1)) {
    throw notThere(`The upscaler ${JSON.stringify(fields.upscaler_1.slice(0, 100))}`);
  }
  const isMixed = fields.upscaler_2 !== "None" && fields.extras_upscaler_2_visibility > 0;
  if (isMixed) throw notThere("A second upscaler (upscaler_2)");
  if (fields.resize_mode !== 0 && fields.resize_mode !== 1) {
    throw badField("resize_mode", "unexpected value; permitted: 0, 1", "value_error.const");
  }
  const { upscaling_resize: factor } = fields;
  if (factor < 1 || factor > 8) throw badField("upscaling_resize", "must be from 1 to 8");
}

/** Within a box the shape is kept, and cut off where the request says so. */
function wantedSize(fields: ExtraFields, { width, height }: Size) {
  if (fields.resize_mode === 0) {
    const by = fields.upscaling_resize;
    return { width: Math.trunc(width * by), height: Math.trunc(height * by) };
  }
  const [w, h] = [Number(fields.upscaling_resize_w), Number(fields.upscaling_resize_h)];
  if (fields.upscaling_crop) return { width: w, height: h };
  const by = Math.max(w / width, h / height);
  return { width: Math.round(width * by), height: Math.round(height * by) };
}
