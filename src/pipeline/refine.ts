/**
 * Requests to a base model and a refiner: diffusers' ensemble of experts. The base model takes the
 * noise levels up to `denoisingEnd` and the refiner goes on with the latents; without, the refiner
 * makes the last steps of the finished latents anew, as img2img does.
 */
import { badOption, escaped } from "../errors.ts";
import type { Model } from "../models/model.ts";
import { defaultOf } from "../settings/setting.ts";
import { controlSettings } from "../settings/table/control.ts";
import { inputSettings } from "../settings/table/input.ts";
import { ipAdapterSettings } from "../settings/table/ip-adapter.ts";
import { settingOf } from "../settings/table.ts";
import type { Naming } from "../settings/values.ts";
import { withHires } from "./hires.ts";
import type { ReadInput } from "./input.ts";
import { noImages, type ReadImages } from "./read-images.ts";
import { type GenerateRequest, type PlannedRequest, planRequest } from "./request.ts";
import type { RequestFiles } from "./request-files.ts";

/** diffusers' default for a refiner. */
const strengthAlone = 0.3;

interface PlanContext {
  model: Model;
  /** null for none. */
  refiner: Model | null;
  rankCount: number;
  naming: Naming;
  files: RequestFiles;
}

/** As `planRequest`, with the refiner's part in `refined`. */
export function planImages(
  request: GenerateRequest,
  { model, refiner, rankCount, naming, files }: PlanContext,
  read: ReadImages,
): PlannedRequest {
  checkScores(request, refiner ?? model, naming);
  if (refiner === null) {
    const first = planRequest(request, model, rankCount, naming, files, read);
    const plan = withHires(first, request, { model, rankCount, naming, files });
    if (plan.settings.denoisingEnd === 1 || !plan.wantImages) return plan;
    throw badOption(`${naming("denoisingEnd")} needs ${naming("refiner")}, which goes on there.`);
  }
  if (request.hires !== undefined) {
    throw badOption(`${naming("hires")} and ${naming("refiner")} are both what follows the model's \
own steps: one of them can be.`);
  }
  const unfinished = { ...request, wantLatents: true, wantImages: false };
  const base = planRequest(unfinished, model, rankCount, naming, files, read);
  const own = refinerRequest(request, base, model, read.input);
  const ownRead = { ...noImages, input: own.image ? read.input : null };
  const refined = planRequest(own, refiner, rankCount, naming, files, ownRead);
  const warnings = new Set([...base.warnings, ...refined.warnings]);
  return { ...base, request, warnings: [...warnings], refined };
}

/** Refuses a refiner that reads other latents than the base model makes. */
export function checkRefiner(refiner: Model, base: Model, naming: Naming): void {
  const isSame =
    refiner.vae.latentChannels === base.vae.latentChannels &&
    refiner.vaeFactor === base.vaeFactor &&
    refiner.vae.scalingFactor === base.vae.scalingFactor;
  if (isSame) return;
  throw badOption(
    `${naming("refiner")} ${escaped(refiner.name, 60)} has another VAE than the model \
${escaped(base.name, 60)}, so its latents differ: name a refiner of the same family.`,
  );
}

// --- internal ---

/** Refuses scores that no network reads. */
function checkScores(request: GenerateRequest, last: Model, naming: Naming): void {
  const keys = ["aestheticScore", "negativeAestheticScore"] as const;
  const lost = keys.find(
    (key) => (request[key] ?? defaultOf(settingOf(key))) !== defaultOf(settingOf(key)),
  );
  if (lost === undefined || last.kind === "refiner") return;
  throw badOption(
    `${naming(lost)} is read by SDXL's refiner alone, and ${escaped(last.name, 60)} is none: leave \
it out, or name one by ${naming("refiner")}.`,
  );
}

/** The refiner's part: the same images, without LoRAs and networks of the base model. */
function refinerRequest(
  request: GenerateRequest,
  { settings, span, batches }: PlannedRequest,
  { vae, vaeFactor }: Model,
  source: ReadInput | null,
): GenerateRequest {
  const images = batches.flatMap((batch) => batch.images);
  const shape = [
    ...([images.length, vae.latentChannels] as const),
    ...([settings.height / vaeFactor, settings.width / vaeFactor] as const),
  ] as const;
  // What stays of an image must stay here too.
  const kept = source?.mask ? request : { ...request, ...noInput };
  const { width, height, denoisingEnd, scheduler, sigmas, timesteps, compat } = settings;
  const { timestepSpacing, syncMode, noiseSampler } = settings;
  // Where steps are counted, those that an image to start from has left out are among them.
  const start = compat === "diffusers" ? denoisingEnd : span.end / span.stepCount;
  return {
    ...kept,
    ...{ ...noNetworks, width, height, loras: [] },
    // The base model's defaults, and what a recipe made of them.
    ...{ scheduler, sigmas, timesteps, timestepSpacing, syncMode, noiseSampler },
    recipe: undefined,
    // Without tags. A refiner's one encoder reads the first prompt, as in diffusers.
    prompt: images.map(({ prompt }) => prompt),
    negativePrompt: images.map(({ negativePrompt }) => negativePrompt),
    ...{ prompt2: undefined, negativePrompt2: undefined },
    guidanceScale: images.map(({ guidanceScale }) => guidanceScale),
    seeds: images.map(({ seed }) => seed),
    // The job has the values.
    latents: { values: new Float32Array(shape.reduce((a, b) => a * b)), shape },
    ...(denoisingEnd < 1
      ? { stepCount: span.stepCount, denoisingStart: start }
      : { stepCount: settings.stepCount, strength: strengthAlone }),
    denoisingEnd: 1,
  };
}

const noNetworks = Object.fromEntries(
  Object.keys({ ...controlSettings, ...ipAdapterSettings }).map((key) => [key, []]),
);

const noInput = Object.fromEntries(Object.keys(inputSettings).map((key) => [key, undefined]));
