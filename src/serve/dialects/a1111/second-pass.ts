/**
 * A1111's hires fix as the settings of a second pass.
 * Source: A1111 1.10 and Forge, modules/processing.py (StableDiffusionProcessingTxt2Img,
 * calculate_target_resolution) and modules/shared.py (latent_upscale_modes).
 */
import { hiresNames } from "../../../metadata/from-infotext.ts";
import { samplerNamed } from "../../../settings/names.ts";
import { type RequestSettings, settings as table } from "../../../settings/table.ts";
import type { Capabilities } from "../../capabilities.ts";
import { nameIn } from "../listed-names.ts";
import { notThere } from "./errors.ts";
import { inRange, type TextToImageFields } from "./fields.ts";

/** Nothing where the request has none. Throws `A1111Error`. */
export function secondPassOf(
  fields: TextToImageFields,
  lists: Pick<Capabilities, "upscalers">,
): Partial<RequestSettings> {
  if (!fields.enable_hr) return {};
  refuseOthers(fields);
  const { denoising_strength: strength, hr_second_pass_steps: steps } = fields;
  // A1111 takes a step of noise there; here nothing is made anew.
  if (strength === 0) throw notThere("A second pass with denoising_strength 0");
  return {
    hires: factorOf(fields),
    hiresUpscaler: upscalerOf(fields.hr_upscaler ?? "Latent", lists),
    hiresStrength: inRange("denoising_strength", strength ?? 0.75, table.hiresStrength),
    ...(steps !== 0 && { hiresSteps: inRange("hr_second_pass_steps", steps, table.hiresSteps) }),
  };
}

/** GET /sdapi/v1/latent-upscale-modes. */
export function latentUpscaleModes() {
  const names = [...Object.values(hiresNames), ...Object.keys(sameWhereLarger)];
  return names.filter((name) => name.startsWith("Latent")).map((name) => ({ name }));
}

// --- internal ---

/** Antialiasing changes nothing where an image becomes larger. */
const sameWhereLarger: Readonly<Record<string, string>> = {
  "Latent (antialiased)": "Latent",
  "Latent (bicubic antialiased)": "Latent (bicubic)",
};

/** What the second pass has of its own in A1111. */
function refuseOthers(fields: TextToImageFields): void {
  const isSame = (name: string | null, own: string | null) => {
    return !name || /^use same /i.test(name) || name === own;
  };
  const sampler = (name: string | null) => (name ? (samplerNamed(name)?.name ?? name) : null);
  if (!isSame(fields.hr_checkpoint_name, null)) throw another("model", "hr_checkpoint_name");
  const own = sampler(fields.sampler_name || fields.sampler_index);
  if (!isSame(sampler(fields.hr_sampler_name), own)) throw another("sampler", "hr_sampler_name");
  if (!isSame(fields.hr_scheduler, fields.scheduler)) throw another("schedule", "hr_scheduler");
  if (!isSame(fields.hr_prompt, fields.prompt)) throw another("prompt", "hr_prompt");
  if (!isSame(fields.hr_negative_prompt, fields.negative_prompt)) {
    throw another("negative prompt", "hr_negative_prompt");
  }
  if (Number(fields.firstphase_width) > 0 || Number(fields.firstphase_height) > 0) {
    throw notThere("A size of the first pass (firstphase_width, firstphase_height)");
  }
}

function another(what: string, field: string) {
  return notThere(`Another ${what} of the second pass (${field})`);
}

function upscalerOf(name: string, { upscalers }: Pick<Capabilities, "upscalers">): string {
  const plain = sameWhereLarger[name] ?? name;
  const own = Object.keys(hiresNames).find((each) => hiresNames[each] === plain);
  const found = own ?? nameIn(upscalers, name);
  if (found !== null) return found;
  throw notThere(`The upscaler ${JSON.stringify(name.slice(0, 100))} (hr_upscaler)`);
}

/** Both sides grow alike. */
function factorOf(fields: TextToImageFields): number {
  const [toX, toY] = [Number(fields.hr_resize_x), Number(fields.hr_resize_y)];
  const [byX, byY] = [toX / Number(fields.width), toY / Number(fields.height)];
  const isBySize = toX !== 0 || toY !== 0;
  const factor = isBySize ? Math.max(byX, byY) : fields.hr_scale;
  if (toX !== 0 && toY !== 0 && Math.abs(byX - byY) > 1e-3) {
    throw notThere("Another shape of the second pass (hr_resize_x, hr_resize_y)");
  }
  return inRange(isBySize ? "hr_resize_x" : "hr_scale", factor, table.hires);
}
