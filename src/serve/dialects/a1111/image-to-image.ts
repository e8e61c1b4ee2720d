/**
 * A request of A1111's img2img as a job that starts from an image. What this program cannot do is
 * refused by its name.
 * Source: A1111 1.10, modules/api/api.py (img2imgapi) and modules/processing.py
 * (StableDiffusionProcessingImg2Img, create_binary_mask).
 */
import { type JsonObject, wordsOf } from "../../../metadata/foreign-json.ts";
import { type RequestSettings, settings as table } from "../../../settings/table.ts";
import type { Capabilities } from "../../capabilities.ts";
import { blurredMask, maskOf } from "../mask-bytes.ts";
import { controlUnitsOf } from "./control-units.ts";
import { A1111Error, notThere, unreadableImage } from "./errors.ts";
import { badField, type ImageToImageFields, imageIn, inRange, readImageToImage } from "./fields.ts";
import type { Options } from "./options.ts";
import { type Asked, specOf } from "./request.ts";

/** Rejects with `A1111Error`, and "bad-option" for a value that no setting has. */
export async function readImageToImageRequest(
  body: JsonObject,
  options: Options,
  lists: Capabilities,
): Promise<Asked> {
  const fields = readImageToImage(body);
  refuseMissing(fields);
  const sources = fields.init_images ?? [];
  if (sources.length === 0) throw new A1111Error(404, "Init image not found");
  if (sources.length > 1) throw notThere("A second image to start from (init_images)");
  const own: Partial<RequestSettings> = {
    strength: inRange("denoising_strength", fields.denoising_strength, table.strength),
    resize: resizeOf(fields),
    ...(fields.mask && maskSettings(fields)),
  };
  const { request, dialectData, ...rest } = specOf(fields, body, options, lists, own.strength);
  const image = imageIn(wordsOf(sources[0]));
  const units = controlUnitsOf(fields.alwayson_scripts, lists, image);
  const spec = { ...rest, request: { ...request, ...own, ...units.settings }, dialectData };
  const mask = fields.mask ? await maskIn(fields.mask, fields) : null;
  const answered = fields.include_init_images ? {} : { init_images: null, mask: null };
  return {
    spec,
    images: { image, mask, ...units.images },
    fields: { ...fields, ...answered },
  };
}

// --- internal ---

/** What A1111 has and this program has not. */
function refuseMissing(fields: ImageToImageFields): void {
  const { initial_noise_multiplier: multiplier } = fields;
  if (multiplier !== null && multiplier !== 1) {
    throw notThere("More or less noise (initial_noise_multiplier)");
  }
  if (fields.latent_mask) throw notThere("A mask of the latent (latent_mask)");
  if (!fields.mask) return;
  if (maskContents[Number(fields.inpainting_fill)] !== undefined) return;
  const permitted = [...maskContents.keys()].join(", ");
  const message = `unexpected value; permitted: ${permitted}`;
  throw badField("inpainting_fill", message, "value_error.const");
}

/** By A1111's numbers. */
const maskContents = ["fill", "original", "latent-noise", "latent-nothing"] as const;

/** A1111's names: just resize, crop and resize, resize and fill. */
const resizes = ["stretch", "cover", "fit"] as const;

function resizeOf({ resize_mode: mode }: ImageToImageFields): (typeof resizes)[number] {
  if (mode === 3) throw notThere("The enlarged latent (resize_mode 3)");
  const resize = resizes[Number(mode)];
  if (resize !== undefined) return resize;
  throw badField("resize_mode", "unexpected value; permitted: 0, 1, 2", "value_error.const");
}

function maskSettings(fields: ImageToImageFields): Partial<RequestSettings> {
  const { inpaint_full_res: isPart, inpaint_full_res_padding: sent } = fields;
  const padding = inRange("inpaint_full_res_padding", sent, table.maskPadding);
  const { across, down } = blurOf(fields);
  return {
    maskContent: maskContents[Number(fields.inpainting_fill)],
    maskArea: isPart ? "masked" : "whole",
    ...(isPart && { maskPadding: padding }),
    // A blur that differs by side is that of the file already, and comes after the inversion.
    ...(across === down && { invertMask: isInverted(fields), maskBlur: across }),
  };
}

function isInverted({ inpainting_mask_invert: invert }: ImageToImageFields): boolean {
  return Number(invert) !== 0;
}

/** Standard deviations in pixels. */
function blurOf({ mask_blur: both, mask_blur_x: across, mask_blur_y: down }: ImageToImageFields) {
  return {
    across: inRange(both === null ? "mask_blur_x" : "mask_blur", both ?? across, table.maskBlur),
    down: inRange(both === null ? "mask_blur_y" : "mask_blur", both ?? down, table.maskBlur),
  };
}

async function maskIn(text: string, fields: ImageToImageFields): Promise<Uint8Array> {
  const { across, down } = blurOf(fields);
  const blur = across === down ? null : { across, down };
  const mask = await maskOf(imageIn(text), {
    ...{ from: "alpha-or-grey" as const, cutsAlpha: fields.mask_round },
    isInverted: blur !== null && isInverted(fields),
  });
  const blurred = mask && blur ? await blurredMask(mask, blur) : mask;
  if (blurred !== null) return blurred;
  throw unreadableImage();
}
