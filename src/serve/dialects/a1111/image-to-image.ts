/**
 * A request of A1111's img2img as a job that starts from an image. What this program cannot do is
 * refused by its name.
 * Source: A1111 1.10, modules/api/api.py (img2imgapi) and modules/processing.py
 * (StableDiffusionProcessingImg2Img, create_binary_mask).
 */
import type { JsonObject } from "../../../metadata/foreign-json.ts";
import type { RequestSettings } from "../../../settings/table.ts";
import type { Capabilities } from "../../capabilities.ts";
import type { InputImages } from "../../jobs/types.ts";
import { maskOf } from "../mask-bytes.ts";
import { A1111Error, notThere, unreadableImage } from "./errors.ts";
import { badField, type ImageToImageFields, imageIn, readImageToImage } from "./fields.ts";
import type { Options } from "./options.ts";
import { type Asked, specOf } from "./request.ts";

interface AskedFromImage extends Asked {
  images: InputImages;
}

/** Rejects with `A1111Error`, and "bad-option" for a value that no setting has. */
export async function readImageToImageRequest(
  body: JsonObject,
  options: Options,
  lists: Capabilities,
): Promise<AskedFromImage> {
  const fields = readImageToImage(body);
  refuseMissing(fields);
  const sources = fields.init_images ?? [];
  if (sources.length === 0) throw new A1111Error(404, "Init image not found");
  if (sources.length > 1) throw notThere("A second image to start from (init_images)");
  const own: Partial<RequestSettings> = {
    ...{ strength: strengthOf(fields), resize: resizeOf(fields) },
    ...(fields.mask && maskSettings(fields)),
  };
  const { request, dialectData, ...rest } = specOf(fields, body, options, lists);
  const isUnfilled = fields.mask && fields.inpainting_fill === null;
  const warnings = [...dialectData.warnings, ...(isUnfilled ? [unfilled] : [])];
  const spec = {
    ...{ ...rest, request: { ...request, ...own } },
    dialectData: { ...dialectData, warnings },
  };
  const image = imageIn(String(sources[0]));
  const mask = fields.mask ? await maskIn(fields.mask, fields.mask_round) : null;
  const answered = fields.include_init_images ? {} : { init_images: null, mask: null };
  return { spec, images: { image, mask }, fields: { ...fields, ...answered } };
}

// --- internal ---

const unfilled =
  "The masked part starts from the image itself (inpainting_fill 1): it is not filled before.";

/** What A1111 has and this program has not. */
function refuseMissing(fields: ImageToImageFields): void {
  const { initial_noise_multiplier: multiplier } = fields;
  if (multiplier !== null && multiplier !== 1) {
    throw notThere("More or less noise (initial_noise_multiplier)");
  }
  if (fields.latent_mask) throw notThere("A mask of the latent (latent_mask)");
  if (!fields.mask) return;
  const { inpainting_fill: fill, mask_blur_x: across, mask_blur_y: down } = fields;
  if (fill !== null && fill !== 1) {
    throw notThere(`The filled masked part (inpainting_fill ${fill}; 1, original, is)`);
  }
  if (fields.mask_blur === null && across !== down) {
    throw notThere("A blur that differs by side (mask_blur_x, mask_blur_y)");
  }
}

function strengthOf({ denoising_strength: strength }: ImageToImageFields): number {
  if (strength >= 0 && strength <= 1) return strength;
  throw badField("denoising_strength", "must be from 0 to 1");
}

/** A1111's names: just resize, crop and resize, resize and fill. */
const resizes = ["stretch", "cover", "fit"] as const;

function resizeOf({ resize_mode: mode }: ImageToImageFields): (typeof resizes)[number] {
  if (mode === 3) throw notThere("The enlarged latent (resize_mode 3)");
  const resize = resizes[Number(mode)];
  if (resize !== undefined) return resize;
  throw badField("resize_mode", "unexpected value; permitted: 0, 1, 2", "value_error.const");
}

function maskSettings(fields: ImageToImageFields): Partial<RequestSettings> {
  const inRange = (name: string, value: number | string, max: number): number => {
    const pixels = Number(value);
    if (pixels >= 0 && pixels <= max) return pixels;
    throw badField(name, `must be from 0 to ${max}`);
  };
  const isPart = fields.inpaint_full_res;
  const padding = inRange("inpaint_full_res_padding", fields.inpaint_full_res_padding, 2048);
  return {
    invertMask: Number(fields.inpainting_mask_invert) !== 0,
    maskBlur: inRange("mask_blur", fields.mask_blur ?? fields.mask_blur_x, 256),
    maskArea: isPart ? "masked" : "whole",
    ...(isPart && { maskPadding: padding }),
  };
}

async function maskIn(text: string, cutsAlpha: boolean): Promise<Uint8Array> {
  const mask = await maskOf(imageIn(text), { from: "alpha-or-grey", cutsAlpha });
  if (mask !== null) return mask;
  throw unreadableImage();
}
