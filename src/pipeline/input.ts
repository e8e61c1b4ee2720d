/**
 * The image that a request starts from: read with its mask, before the request is planned, and
 * brought to the size of the plan when its job runs.
 */
import { type BasedXLError, badOption } from "../errors.ts";
import { a1111Resized } from "../image/a1111-resize.ts";
import type { Size } from "../image/encoder.ts";
import { filled } from "../image/fill.ts";
import { grown } from "../image/grow.ts";
import { opencvBlur } from "../image/opencv-blur.ts";
import { type ImageSource, type RawImage, readHashed } from "../image/read.ts";
import {
  type Area,
  blurred,
  boundsOf,
  cropped,
  extended,
  inverted,
  pasted,
  type ResizeMode,
  resized,
  type Sides,
} from "../image/transform.ts";
import type { Model } from "../models/model.ts";
import type { MaskedLatent } from "../native/abi.ts";
import type { Compat, MaskContent } from "../settings/names.ts";
import { defaultOf } from "../settings/setting.ts";
import { type RequestSettings, settingOf } from "../settings/table.ts";
import { checkSetting, type Naming } from "../settings/values.ts";
import { conditionMask, latentMask } from "./latent-mask.ts";
import { a1111MaskedArea, maskedArea } from "./masked-area.ts";

/** What a request says of it. */
export interface InputRequest
  extends Pick<
    RequestSettings,
    | "imageBackground"
    | "resize"
    | "invertMask"
    | "maskBlur"
    | "maskGrow"
    | "extend"
    | "strength"
    | "maskArea"
    | "maskContent"
    | "maskPadding"
    | "compat"
  > {
  image?: ImageSource | undefined;
  mask?: ImageSource | undefined;
}

/** Pixels as they were read: enlarged where that was asked for, the mask blurred. */
export interface ReadInput {
  image: RawImage;
  /** Grey of the image's size; null for the whole image. */
  mask: RawImage | null;
  /** The part that a grown mask grew from; absent for the mask's own. */
  hidden?: RawImage | undefined;
  /** SHA-256 of the image's pixels and of the mask's, as they were read. */
  imageHash: string;
  maskHash: string | null;
  /** Whether it is what an earlier pass of the request makes. */
  isFirstPass?: boolean | undefined;
}

/** Null without an image. Rejects with "bad-option", "io", "setup". */
export async function readInput(
  request: InputRequest,
  { sizeMultiple }: Pick<Model, "sizeMultiple">,
  naming: Naming,
): Promise<ReadInput | null> {
  const { image: source, mask: maskSource } = request;
  if (source === undefined) return null;
  const background = backgroundOf(request.imageBackground ?? "#ffffff", naming);
  const maskBlur = checkSetting("maskBlur", request.maskBlur ?? 0, naming);
  const maskGrow = checkSetting("maskGrow", request.maskGrow ?? 0, naming);
  const options = { name: naming("image"), channels: 3, background } as const;
  const { image, hash: imageHash } = await readHashed(source, options);
  const sides = request.extend ? sidesOf(request.extend, image, sizeMultiple, naming) : null;
  const larger = sides === null ? image : extended(image, sides);
  const given =
    maskSource === undefined
      ? null
      : await readHashed(maskSource, {
          ...{ name: naming("mask"), channels: 1, background: "#000000" },
        });
  const read = { image: larger, imageHash, maskHash: given?.hash ?? null };
  if (given === null && sides === null) return { ...read, mask: null };
  const ofSize = given && (await fitted(given.image, image, naming));
  const own = ofSize && request.invertMask ? inverted(ofSize) : ofSize;
  const kept = own ?? { ...image, pixels: new Uint8Array(image.width * image.height) };
  const whole = sides === null ? kept : extended(kept, sides, 255);
  if (!whole.pixels.some((value) => value >= 128)) {
    throw badOption(
      `${naming("mask")} has no ${request.invertMask ? "black" : "white"} pixels, so nothing of \
the image would be new: ${naming("invertMask")} turns it round.`,
    );
  }
  const hidden = maskGrow > 0 ? { hidden: whole } : {};
  const isOpencv = request.compat === "a1111" && maskBlur > 0;
  const hard = grown(whole, maskGrow);
  const mask = isOpencv ? opencvBlur(hard, maskBlur) : await blurred(hard, maskBlur);
  return { ...read, ...hidden, mask };
}

/** What `readInput` reads of a request. */
export const inputKeys = [
  "image",
  "mask",
  "imageBackground",
  "invertMask",
  "maskBlur",
  "maskGrow",
  "extend",
  "compat",
] as const;

/** Refuses settings of an image, or of latents to start from, that are not there. */
export function checkInput(
  request: InputRequest,
  read: ReadInput | null,
  { hasLatents, naming }: { hasLatents: boolean; naming: Naming },
): void {
  const needImage = ["mask", "extend", "resize", "imageBackground"] as const;
  const needMask = [
    ...(["invertMask", "maskBlur", "maskGrow"] as const),
    ...(["maskArea", "maskContent", "maskPadding"] as const),
  ];
  const isDefault = (key: keyof InputRequest) =>
    (request[key] ?? defaultOf(settingOf(key))) === defaultOf(settingOf(key));
  const refuse = (keys: readonly (keyof InputRequest)[], missing: string) => {
    const lost = keys.find((key) => !isDefault(key));
    if (lost) throw badOption(`${naming(lost)} needs ${missing}.`);
  };
  if (read === null)
    refuse(
      hasLatents ? needImage : [...needImage, "strength"],
      `an image to start from, ${naming("image")}`,
    );
  if (!read?.mask) refuse(needMask, `a mask, ${naming("mask")}`);
  if (isDefault("maskArea")) refuse(["maskPadding"], `${naming("maskArea")} masked`);
}

/** An image to start from, planned. */
export interface PlannedInput extends ReadInput {
  /** What is computed of it. */
  area: Area;
  resize: ResizeMode;
  maskContent: MaskContent;
}

interface InputSettings {
  width?: number | undefined;
  height?: number | undefined;
  resize: ResizeMode;
  maskArea: "whole" | "masked";
  maskContent: MaskContent;
  maskPadding: number;
  compat: Compat;
}

/** The sizes of what is computed where they are not given, and the part of the image that it is. */
export function planInput(
  read: ReadInput,
  given: InputSettings,
  { nativeSize, sizeMultiple: unit }: Model,
): { input: PlannedInput; width: number; height: number } {
  const { image, mask } = read;
  const { maskContent } = given;
  const whole = { left: 0, top: 0, width: image.width, height: image.height };
  if (mask === null || given.maskArea === "whole") {
    const { width, height } = sizesOf(image, given, unit);
    return { input: { ...read, area: whole, resize: given.resize, maskContent }, width, height };
  }
  const { width = nativeSize.width, height = nativeSize.height } = given;
  const around = { bounds: boundsOf(mask)!, padding: given.maskPadding, shape: width / height };
  const isA1111 = given.compat === "a1111";
  const area = isA1111 ? a1111MaskedArea(around, image) : maskedArea(around, image);
  // The area has the shape already, but for whole pixels and edges.
  const resize = isA1111 ? "fit" : "stretch";
  return { input: { ...read, area, resize, maskContent }, width, height };
}

/** The size of the images that a request gives. */
export function outputSize(input: PlannedInput | null, computed: Size): Size {
  return input === null || isWhole(input) ? computed : input.image;
}

/** What the library is given, and what becomes of its images. */
interface InputPixels {
  image: Uint8Array;
  /** What is hidden from a model that reads the masked image. */
  mask: Uint8Array | null;
  latentMask: Float32Array | null;
  /** Of a model that reads the mask. */
  conditionMask: Float32Array | null;
  maskedLatent: keyof typeof MaskedLatent;
  finish(pixels: Uint8Array): Promise<Uint8Array>;
}

export async function inputPixels(
  input: PlannedInput,
  { compat, ...size }: Size & { compat: Compat },
  { vaeFactor, kind }: Pick<Model, "vaeFactor" | "kind">,
  naming: Naming,
): Promise<InputPixels> {
  const { maskContent } = input;
  const resizedTo = compat === "a1111" ? a1111Resized : resized;
  const ofSize = async (image: RawImage) =>
    await resizedTo(cropped(image, input.area), size, input.resize);
  const image = await ofSize(input.image);
  if (input.mask === null) {
    const noMasks = { mask: null, latentMask: null, conditionMask: null } as const;
    return { image: image.pixels, ...noMasks, maskedLatent: "image", finish: async (made) => made };
  }
  const mask = await ofSize(input.mask);
  const hidden = input.hidden ? await ofSize(input.hidden) : mask;
  const latentSize = { width: size.width / vaeFactor, height: size.height / vaeFactor };
  const masks = {
    latentMask: latentMask(mask, latentSize, compat),
    conditionMask: kind === "inpainting" ? conditionMask(mask, latentSize, compat) : null,
  };
  if (!masks.latentMask.some((share) => share > 0)) throw tooSmall(mask, vaeFactor, naming);
  const isFilled = maskContent !== "original" && maskContent !== "grey";
  const start = isFilled ? await filled(image, mask) : image;
  const maskedLatent = maskedLatents[maskContent];
  const finish = (pixels: Uint8Array) =>
    finished({ ...size, pixels }, { ...input, mask: input.mask! }, { image, mask, compat });
  return { image: start.pixels, mask: hidden.pixels, ...masks, maskedLatent, finish };
}

// --- internal ---

/** A1111 fills the pixels too where the latent is of another content. */
const maskedLatents: Record<MaskContent, keyof typeof MaskedLatent> = {
  original: "image",
  fill: "image",
  "latent-noise": "noise",
  "latent-nothing": "zeros",
  grey: "grey",
};

/** What was made, in the place of the masked part. ComfyUI leaves the whole as it was decoded. */
async function finished(
  made: RawImage,
  input: PlannedInput & { mask: RawImage },
  at: { image: RawImage; mask: RawImage; compat: Compat },
): Promise<Uint8Array> {
  const { width, height } = made;
  const whole = { left: 0, top: 0, width, height };
  if (isWhole(input)) {
    if (at.compat === "comfyui") return made.pixels;
    const mask = at.compat === "a1111" ? doubled(at.mask) : at.mask;
    return pasted(at.image, made, mask, whole).pixels;
  }
  const { area } = input;
  const part =
    at.compat === "a1111"
      ? a1111Resized(made, area, "cover")
      : await resized(made, area, "stretch");
  return pasted(input.image, part, cropped(input.mask, area), area).pixels;
}

/** A1111: what is half new is new as a whole. */
function doubled({ pixels, ...size }: RawImage): RawImage {
  return { ...size, pixels: pixels.map((share) => Math.min(255, 2 * share)) };
}

/** Images that are computed as a whole have the size of the plan. */
function isWhole({ image, area }: PlannedInput): boolean {
  return area.width === image.width && area.height === image.height;
}

function backgroundOf(text: string, naming: Naming): string {
  if (/^#[0-9a-f]{6}$/i.test(text)) return text;
  throw badOption(`${naming("imageBackground")} must be a colour as in #20a0ff, not "${text}".`);
}

const sideNames = ["left", "top", "right", "bottom"] as const;
const extensionMax = 8192;

/** What is added; of sides that grow so much that they are a multiple of the model's unit. */
function sidesOf(text: string, image: Size, unit: number, naming: Naming): Sides {
  const sides: Sides = { left: 0, top: 0, right: 0, bottom: 0 };
  for (const part of text.split(",")) {
    const [, name, digits] = /^\s*(\w+)\s*=\s*(\d{1,5})\s*$/.exec(part) ?? [];
    const side = sideNames.find((each) => each === name);
    if (side === undefined || Number(digits) > extensionMax) {
      throw badOption(
        `${naming("extend")} must be sides and pixels up to ${extensionMax}, as in \
left=128,top=64,right=128,bottom=64, not "${text}".`,
      );
    }
    sides[side] = Number(digits);
  }
  grow(sides, ["left", "right"], image.width, unit);
  grow(sides, ["top", "bottom"], image.height, unit);
  if (sideNames.every((side) => sides[side] === 0)) {
    throw badOption(`${naming("extend")} adds no pixels to any side.`);
  }
  return sides;
}

function grow(
  sides: Sides,
  [first, second]: ["left", "right"] | ["top", "bottom"],
  size: number,
  unit: number,
): void {
  const added = sides[first] + sides[second];
  if (added === 0) return;
  const missing = Math.ceil((size + added) / unit) * unit - size - added;
  sides[sides[first] >= sides[second] ? first : second] += missing;
}

/** A mask of another size must have the image's shape. */
async function fitted(mask: RawImage, image: Size, naming: Naming): Promise<RawImage> {
  const ratio = mask.width / mask.height / (image.width / image.height);
  if (Math.abs(Math.log(ratio)) < 0.02) return await resized(mask, image, "stretch");
  throw badOption(
    `${naming("mask")} is ${mask.width}x${mask.height} and ${naming("image")} \
${image.width}x${image.height}: they must have the same shape.`,
  );
}

/** The image's own, rounded to the unit; of one that is given, by the image's shape. */
function sizesOf(image: Size, { width, height }: InputSettings, unit: number): Size {
  const rounded = (size: number) => Math.max(unit, Math.round(size / unit) * unit);
  return {
    width: width ?? rounded(height ? (image.width * height) / image.height : image.width),
    height: height ?? rounded(width ? (image.height * width) / image.width : image.height),
  };
}

function tooSmall({ width, height }: Size, factor: number, naming: Naming): BasedXLError {
  return badOption(
    `${naming("mask")} is too small: at ${width}x${height} it covers none of the latent's \
positions, which are ${factor} pixels apart; ${naming("maskArea")} masked enlarges it.`,
  );
}
