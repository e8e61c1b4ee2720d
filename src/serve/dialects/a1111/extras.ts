/**
 * A1111's extras: an image enlarged by a filter or by an upscaler of the server's list.
 * Source: A1111 and Forge, modules/api/models.py (ExtrasBaseRequest), modules/upscaler.py and
 * scripts/postprocessing_upscale.py.
 */
import { BasedXLError } from "../../../errors.ts";
import type { Size } from "../../../image/encoder.ts";
import type { RawImage } from "../../../image/read.ts";
import { encodePng } from "../../../image.ts";
import type { JsonObject } from "../../../metadata/foreign-json.ts";
import type { Upscaling } from "../../upscaling.ts";
import { colouredPixels, pixelsMax, sizeOfImage } from "../image-bytes.ts";
import { nameIn } from "../listed-names.ts";
import { resampled } from "../resample.ts";
import type { DialectServices } from "../services.ts";
import { notThere, unreadableImage } from "./errors.ts";
import { badField, imageIn, readFields } from "./fields.ts";
import { filters } from "./lists.ts";

/** POST /sdapi/v1/extra-single-image. Rejects with `A1111Error`. */
export async function enlargedImage(
  body: JsonObject,
  { capabilities, upscaling }: Pick<DialectServices, "capabilities" | "upscaling">,
): Promise<{ html_info: string; image: string }> {
  const fields = readFields(extraFields, body);
  refuseMissing(fields);
  const upscaler = upscalerOf(fields, capabilities.current().upscalers);
  const bytes = imageIn(fields.image);
  const size = await sizeOfImage(bytes);
  if (size === null) throw unreadableImage();
  const wanted = upscaler === "None" ? size : wantedSize(fields, size);
  checkSize(wanted);
  const image = await colouredPixels(bytes).catch((error: unknown) => {
    // The header was whole: what is behind it is not.
    throw error instanceof BasedXLError ? error : unreadableImage();
  });
  const enlarged = await enlargedBy(upscaler, image, wanted, upscaling);
  const box = upscaler === "None" ? null : boxOf(fields);
  const { pixels, width, height } = box === null ? enlarged : centred(enlarged, box);
  return { html_info: "", image: (await encodePng(pixels, width, height)).toBase64() };
}

// --- internal ---

async function enlargedBy(
  upscaler: string,
  image: RawImage,
  size: Size,
  upscaling: Upscaling | null,
): Promise<RawImage> {
  if (upscaler === "None") return image;
  if (upscaler === "Lanczos") return await resampled(image, size, "lanczos");
  if (upscaler === "Nearest") return await resampled(image, size, "nearest-exact");
  if (upscaling === null) throw notThere(`An upscaler of this server, which has workers (--queue)`);
  return await upscaling.upscale(image, { upscaler, size });
}

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
  const isMixed = fields.upscaler_2 !== "None" && fields.extras_upscaler_2_visibility > 0;
  if (isMixed) throw notThere("A second upscaler (upscaler_2)");
  if (fields.resize_mode !== 0 && fields.resize_mode !== 1) {
    throw badField("resize_mode", "unexpected value; permitted: 0, 1", "value_error.const");
  }
  const { upscaling_resize: factor } = fields;
  if (factor < 1 || factor > 8) throw badField("upscaling_resize", "must be from 1 to 8");
}

/** A filter, or a name of the list. */
function upscalerOf(
  { upscaler_1: name }: ExtraFields,
  listed: readonly { name: string }[],
): string {
  const found = filters.find((each) => each === name) ?? nameIn(listed, name);
  if (found !== null) return found;
  throw notThere(`The upscaler ${JSON.stringify(name.slice(0, 100))}`);
}

function checkSize({ width, height }: Size): void {
  const isSide = (side: number) => side >= 1 && side <= sideMax;
  if (isSide(width) && isSide(height) && width * height <= pixelsMax) return;
  throw badField("upscaling_resize", `${width}x${height} is too large or too small`);
}

/** Around or inside a box the shape is kept; sides are multiples of 8. */
function wantedSize(fields: ExtraFields, { width, height }: Size): Size {
  const { width: toWidth, height: toHeight } = toSize(fields);
  const by =
    fields.resize_mode === 0
      ? fields.upscaling_resize
      : Math.max(toWidth / width, toHeight / height);
  const side = (of: number) => Math.floor((of * by) / 8) * 8;
  return { width: side(width), height: side(height) };
}

function toSize({ upscaling_resize_w: width, upscaling_resize_h: height }: ExtraFields): Size {
  return { width: Number(width), height: Number(height) };
}

/** What the image is cut to; null where it is not. */
function boxOf(fields: ExtraFields): Size | null {
  if (fields.resize_mode === 0 || !fields.upscaling_crop) return null;
  const box = toSize(fields);
  checkSize(box);
  return box;
}

/** The middle of the image; black where it does not reach. */
function centred(image: RawImage, { width, height }: Size): RawImage {
  const left = Math.floor(width / 2) - Math.floor(image.width / 2);
  const top = Math.floor(height / 2) - Math.floor(image.height / 2);
  const pixels = new Uint8Array(3 * width * height);
  const first = Math.max(0, -left);
  const end = Math.min(image.width, width - left);
  for (let row = Math.max(0, top); row < Math.min(height, top + image.height); row++) {
    const from = (row - top) * image.width;
    const line = image.pixels.subarray(3 * (from + first), 3 * (from + end));
    pixels.set(line, 3 * (row * width + left + first));
  }
  return { pixels, width, height };
}
