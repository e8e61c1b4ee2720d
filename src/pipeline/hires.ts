/**
 * The second pass of a request: each image enlarged, then denoised again as an image to start from,
 * with the same prompts, seed and sampler (A1111's hires fix). It is planned as the request that
 * `--image` and `--strength` would be.
 */
import assert from "node:assert/strict";
import { badOption } from "../errors.ts";
import type { Size } from "../image/encoder.ts";
import type { RawImage } from "../image/read.ts";
import { resized } from "../image/transform.ts";
import type { Model } from "../models/model.ts";
import type { UpscalerNetwork } from "../networks/network.ts";
import { openUpscaler } from "../networks/upscaler.ts";
import { hiresSettings } from "../settings/table/hires.ts";
import { settings as table } from "../settings/table.ts";
import type { Naming } from "../settings/values.ts";
import { outputSize, type ReadInput } from "./input.ts";
import { type InterpolateMode, interpolated } from "./latent-resize.ts";
import {
  type GenerateRequest,
  type HiresUpscaler,
  type PlannedHires,
  type PlannedRequest,
  planRequest,
} from "./request.ts";
import type { RequestFiles } from "./request-files.ts";
import type { Latents } from "./start-latents.ts";

/** What the first pass made of an image: pixels, or latents where these are enlarged. */
export interface FirstResult {
  pixels: Uint8Array | undefined;
  latents: Float32Array | undefined;
}

/** Runs an upscaler. */
type Enlarge = (image: RawImage, size: Size, network: UpscalerNetwork) => Promise<RawImage>;

type HiresKey = keyof typeof hiresSettings;

interface PlanContext {
  model: Model;
  rankCount: number;
  naming: Naming;
  files: RequestFiles;
}

const defaultUpscaler = "latent";

const latentModes: Readonly<Record<string, InterpolateMode>> = {
  latent: "bilinear",
  "latent-bicubic": "bicubic",
  "latent-nearest-exact": "nearest-exact",
};

/** The plan of `request`, of which `first` is one pass, with the second. Throws "bad-option". */
export function withHires(
  first: PlannedRequest,
  request: GenerateRequest,
  context: PlanContext,
): PlannedRequest {
  const { hires } = first.settings;
  if (hires === undefined) {
    refuseAlone(request, context.naming);
    return first;
  }
  const planned = planHires(first, hires, request, context);
  const { plan, upscaler } = planned;
  const hiresStrength = planned.denoises ? plan.settings.strength : 0;
  const own = { hiresStrength, hiresUpscaler: upscaler.name };
  const isLatent = upscaler.kind === "latent";
  // What the second pass starts from.
  const wanted = { wantLatents: isLatent, wantImages: !isLatent };
  return { ...first, settings: { ...first.settings, ...own }, ...wanted, hires: planned };
}

/** Refuses what processes do not share: process 0 alone has the images of the first pass. */
export function checkTogether({ hires }: PlannedRequest, naming: Naming): void {
  if (hires === null || hires.upscaler.kind === "latent") return;
  throw badOption(
    `${naming("hiresUpscaler")} ${hires.upscaler.name} is for one process: with several it is \
latent.`,
  );
}

/** The size of the images that a request gives, after its last pass. */
export function finalSize({ hires, input, settings }: PlannedRequest): Size {
  if (hires === null) return outputSize(input, settings);
  const { width, height } = hires.plan.settings;
  return { width, height };
}

/** The second pass of one image, of which the first made `made`; `enlarge` runs a network. */
export async function secondPass(
  hires: PlannedHires,
  index: number,
  made: FirstResult,
  enlarge: Enlarge,
): Promise<PlannedRequest> {
  const { plan } = hires;
  const one = { ...plan, batches: plan.batches.slice(index, index + 1) };
  if (hires.upscaler.kind === "latent") return { ...one, latents: largerLatents(hires, made) };
  assert(plan.input, "a second pass without an image");
  return { ...one, input: { ...plan.input, image: await enlargedResult(hires, made, enlarge) } };
}

/** The image that the first pass `made`, at the size of the second. */
export async function enlargedResult(
  { plan, firstSize, upscaler }: PlannedHires,
  { pixels }: FirstResult,
  enlarge: Enlarge,
): Promise<RawImage> {
  assert(pixels, "a first pass without an image");
  const { width, height } = plan.settings;
  const first = { ...firstSize, pixels };
  if (upscaler.kind !== "model") return await resized(first, { width, height }, "stretch");
  return await enlarge(first, { width, height }, upscaler.network);
}

// --- internal ---

function planHires(
  first: PlannedRequest,
  factor: number,
  request: GenerateRequest,
  { model, rankCount, naming, files }: PlanContext,
): PlannedHires {
  if (first.input !== null || first.latents !== null) {
    throw badOption(
      `${naming("hires")} is for images from noise alone: leave ${naming("image")} out, or enlarge \
that by ${naming("width")} and ${naming("height")}.`,
    );
  }
  if (first.settings.denoisingEnd < 1) {
    throw badOption(`${naming("hires")} needs the whole first pass, ${naming("denoisingEnd")} 1.`);
  }
  const upscaler = upscalerOf(request.hiresUpscaler ?? defaultUpscaler, files);
  const size = largerSize(first.settings, factor, model, naming);
  const asked = request.hiresStrength ?? (upscaler.kind === "latent" ? 0.7 : 0.4);
  const denoises = asked > 0;
  if (!denoises) checkOnlyEnlarged(upscaler, request, naming);
  const strength = denoises ? asked : 1;
  const stepCount = request.hiresSteps || request.stepCount;
  const { warmupSteps } = request;
  // A pass of fewer steps has at most so many that are synchronous.
  const taken = Math.max(1, Math.trunc((stepCount ?? first.settings.stepCount) * strength));
  const second: GenerateRequest = {
    ...request,
    ...Object.fromEntries(Object.keys(hiresSettings).map((key) => [key, undefined])),
    ...size,
    ...{ strength, stepCount, batchSize: 1 },
    ...(upscaler.kind === "latent"
      ? { latents: noLatents(size, model) }
      : { image: noPixels(size) }),
    seeds: first.batches.flatMap(({ images }) => images.map(({ seed }) => seed)),
    warmupSteps: typeof warmupSteps === "number" ? Math.min(warmupSteps, taken) : warmupSteps,
  };
  const named: Naming = (key) => naming(namesOfSecond[key] ?? key);
  const { width, height } = first.settings;
  const input = upscaler.kind === "latent" ? null : inputOf(noPixels(size));
  const read = { ...first.read, input };
  const plan = planRequest(second, model, rankCount, named, files, read);
  return { plan, denoises, firstSize: { width, height }, upscaler };
}

/** Settings of the second request, as the first one names them. */
const namesOfSecond: Partial<Record<string, HiresKey>> = {
  strength: "hiresStrength",
  stepCount: "hiresSteps",
};

function refuseAlone(request: GenerateRequest, naming: Naming): void {
  const keys = Object.keys(hiresSettings) as HiresKey[];
  const lost = keys.find((key) => request[key] !== undefined);
  if (lost) throw badOption(`${naming(lost)} needs ${naming("hires")}.`);
}

function upscalerOf(name: string, files: RequestFiles): HiresUpscaler {
  const mode = Object.hasOwn(latentModes, name) ? latentModes[name] : undefined;
  if (mode !== undefined) return { kind: "latent", name, mode };
  if (name === "lanczos") return { kind: "lanczos", name };
  const network = openUpscaler(files.find("upscaler", name));
  return { kind: "model", name: network.name, network };
}

function largerSize(
  { width, height }: Size,
  factor: number,
  { sizeMultiple: unit }: Model,
  naming: Naming,
): Size {
  const sideOf = (side: number) => Math.max(unit, Math.round((side * factor) / unit) * unit);
  const size = { width: sideOf(width), height: sideOf(height) };
  const { max } = table.width;
  if (Math.max(size.width, size.height) <= max) return size;
  throw badOption(
    `${naming("hires")} ${factor} of ${width}x${height} is ${size.width}x${size.height}: ${max} \
pixels a side are possible.`,
  );
}

/** Of images that no second pass denoises. */
function checkOnlyEnlarged(
  { kind }: HiresUpscaler,
  { hiresSteps, wantLatents }: GenerateRequest,
  naming: Naming,
): void {
  const strength = naming("hiresStrength");
  if (kind === "latent") {
    throw badOption(
      `${strength} must be above 0 where the latent is enlarged: at 0 ${naming("hiresUpscaler")} \
must be lanczos or an upscaler.`,
    );
  }
  if (hiresSteps) throw badOption(`${naming("hiresSteps")} needs ${strength} above 0.`);
  if (wantLatents) throw badOption(`wantLatents needs ${strength} above 0.`);
}

/** The first pass's latents, at the size of the second. */
function largerLatents({ plan, firstSize, upscaler }: PlannedHires, made: FirstResult): Latents {
  assert(made.latents && plan.latents && upscaler.kind === "latent", "no latents");
  const { shape } = plan.latents;
  const [, , height, width] = shape;
  const factor = plan.settings.width / width;
  const from = { width: firstSize.width / factor, height: firstSize.height / factor };
  const values = interpolated(made.latents, from, { width, height }, upscaler.mode);
  return { ...plan.latents, values };
}

/** Of latents that the first pass will make. */
function noLatents({ width, height }: Size, { vae, vaeFactor }: Model): Latents {
  const shape = [1, vae.latentChannels, height / vaeFactor, width / vaeFactor] as const;
  const values = new Float32Array(shape.reduce((product, size) => product * size, 1));
  return { values, shape, isFirstPass: true };
}

/** Of an image that the first pass will make. */
function noPixels(size: Size): RawImage {
  return { ...size, pixels: new Uint8Array() };
}

function inputOf(image: RawImage): ReadInput {
  return { image, mask: null, imageHash: "", maskHash: null, isFirstPass: true };
}
