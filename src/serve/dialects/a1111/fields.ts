/**
 * The fields of A1111's txt2img and img2img with their types and defaults, read as pydantic reads
 * them: texts of numbers are numbers, null is the default, and unknown fields are passed over.
 * Source: A1111 1.10 and Forge, modules/processing.py and modules/api/models.py.
 */
import { isObject, type JsonObject, wordsOf } from "../../../metadata/foreign-json.ts";
import { decodedBase64 } from "../image-bytes.ts";
import { longWhole, looseNumber, looseText } from "../loose-values.ts";
import { A1111Error, type FieldProblem, unreadableImage } from "./errors.ts";

const text = (of: string) => ({ kind: "text", default: of }) as const;
const noText = { kind: "text", default: null } as const;
const whole = (of: number) => ({ kind: "whole", default: of }) as const;
const number = (of: number) => ({ kind: "number", default: of }) as const;
const noNumber = { kind: "number", default: null } as const;
const flag = (of: boolean) => ({ kind: "flag", default: of }) as const;
const noFlag = { kind: "flag", default: null } as const;
const noObject = { kind: "object", default: null } as const;

/** Of both kinds of requests. */
const common = {
  ...{
    prompt: text(""),
    negative_prompt: text(""),
    styles: { kind: "list", default: null } as const,
  },
  ...{ seed: whole(-1), subseed: whole(-1), subseed_strength: number(0) },
  ...{ seed_resize_from_h: whole(-1), seed_resize_from_w: whole(-1) },
  ...{ sampler_name: noText, scheduler: noText, batch_size: whole(1), n_iter: whole(1) },
  ...{ steps: whole(50), cfg_scale: number(7), width: whole(512), height: whole(512) },
  ...{ restore_faces: noFlag, tiling: noFlag },
  ...{ do_not_save_samples: flag(false), do_not_save_grid: flag(false) },
  ...{ eta: noNumber, s_min_uncond: noNumber, s_churn: noNumber },
  ...{ s_tmax: noNumber, s_tmin: noNumber, s_noise: noNumber },
  ...{ override_settings: noObject },
  override_settings_restore_afterwards: flag(true),
  ...{ refiner_checkpoint: noText, refiner_switch_at: noNumber },
  ...{ disable_extra_networks: flag(false), comments: noObject },
  ...{ force_task_id: noText, sampler_index: text("Euler"), script_name: noText },
  ...{ script_args: { kind: "list", default: [] } as const, send_images: flag(true) },
  ...{ save_images: flag(false), alwayson_scripts: { kind: "object", default: {} } as const },
  infotext: noText,
} as const;

const textToImage = {
  ...common,
  ...{ denoising_strength: noNumber, firstpass_image: noText, enable_hr: flag(false) },
  ...{ firstphase_width: whole(0), firstphase_height: whole(0), hr_scale: number(2) },
  ...{ hr_upscaler: noText, hr_second_pass_steps: whole(0), hr_resize_x: whole(0) },
  ...{ hr_resize_y: whole(0), hr_checkpoint_name: noText, hr_sampler_name: noText },
  ...{ hr_scheduler: noText, hr_prompt: text(""), hr_negative_prompt: text("") },
} as const;

const imageToImage = {
  ...common,
  ...{ init_images: { kind: "list", default: null } as const, include_init_images: flag(false) },
  ...{ denoising_strength: number(0.75), resize_mode: whole(0), image_cfg_scale: noNumber },
  ...{ initial_noise_multiplier: noNumber, mask: noText, latent_mask: noText },
  ...{ mask_blur: { kind: "whole", default: null } as const, mask_round: flag(true) },
  ...{ mask_blur_x: whole(4), mask_blur_y: whole(4), inpainting_mask_invert: whole(0) },
  ...{ inpainting_fill: whole(0), inpaint_full_res: flag(true) },
  inpaint_full_res_padding: whole(0),
} as const;

interface Kinds {
  text: string;
  whole: number | string;
  number: number;
  flag: boolean;
  list: readonly unknown[];
  object: JsonObject;
}

type FieldTable = Readonly<Record<string, { kind: keyof Kinds; default: unknown }>>;

type ValuesOf<Table extends FieldTable> = {
  [Name in keyof Table]:
    | Kinds[Table[Name]["kind"]]
    | (Table[Name]["default"] extends null ? null : never);
};

/** Whole numbers of 64 bits are texts of digits. */
export type CommonFields = ValuesOf<typeof common>;
export type TextToImageFields = ValuesOf<typeof textToImage>;
export type ImageToImageFields = ValuesOf<typeof imageToImage>;

/** Throws `A1111Error` with every field that cannot be read. */
export function readTextToImage(body: JsonObject): TextToImageFields {
  return readFields(textToImage, body);
}

/** The same of img2img. */
export function readImageToImage(body: JsonObject): ImageToImageFields {
  return readFields(imageToImage, body);
}

/** The values of a table's fields. */
export function readFields<Table extends FieldTable>(
  table: Table,
  body: JsonObject,
): ValuesOf<Table> {
  const problems: FieldProblem[] = [];
  const values = Object.entries(table).map(([name, { kind, default: otherwise }]) => {
    const sent = Object.hasOwn(body, name) ? body[name] : undefined;
    if (sent === undefined || sent === null) return [name, otherwise];
    const value = readers[kind](sent);
    if (value === undefined) problems.push(problemOf(name, kind));
    return [name, value];
  });
  if (problems.length > 0) throw new A1111Error(422, problems);
  return Object.fromEntries(values);
}

/** The error of one field. */
export function badField(name: string, msg: string, type = "value_error"): A1111Error {
  return new A1111Error(422, [{ loc: ["body", name], msg, type }]);
}

/** The number of a field that has limits. */
export function inRange(
  name: string,
  value: number | string,
  { min, max }: { min: number; max: number },
): number {
  const number = Number(value);
  if (number >= min && number <= max) return number;
  throw badField(name, `must be from ${min} to ${max}`);
}

/** The bytes of an image in a field. */
export function imageIn(text: string): Uint8Array {
  if (/^https?:/i.test(text)) throw new A1111Error(422, "Requests not allowed");
  const bytes = decodedBase64(text.trim());
  if (bytes === null) throw unreadableImage();
  return bytes;
}

// --- internal ---

/** undefined for what cannot be read. */
const readers: { [Kind in keyof Kinds]: (sent: unknown) => Kinds[Kind] | undefined } = {
  text: looseText,
  whole(sent) {
    const value = Math.trunc(looseNumber(sent) ?? Number.NaN);
    return longWhole(sent) ?? (Number.isSafeInteger(value) ? value : undefined);
  },
  number: looseNumber,
  flag(sent) {
    if (typeof sent === "boolean") return sent;
    const key = wordsOf(sent).toLowerCase();
    if (["1", "true", "on", "yes"].includes(key)) return true;
    return ["0", "false", "off", "no"].includes(key) ? false : undefined;
  },
  list: (sent) => (Array.isArray(sent) ? sent : undefined),
  object: (sent) => (isObject(sent) ? sent : undefined),
};

/** pydantic's words. */
const words: Readonly<Record<keyof Kinds, readonly [msg: string, type: string]>> = {
  text: ["str type expected", "type_error.str"],
  whole: ["value is not a valid integer", "type_error.integer"],
  number: ["value is not a valid float", "type_error.float"],
  flag: ["value could not be parsed to a boolean", "type_error.bool"],
  list: ["value is not a valid list", "type_error.list"],
  object: ["value is not a valid dict", "type_error.dict"],
};

function problemOf(name: string, kind: keyof Kinds): FieldProblem {
  const [msg, type] = words[kind];
  return { loc: ["body", name], msg, type };
}
