/**
 * Jobs as one request to a pipeline. A job that was interrupted asks for the images that it lacks;
 * jobs that differ in prompt, guidance and seed alone may share a request.
 */
import { seedsFrom } from "../../pipeline/request.ts";
import type { GenerateRequest } from "../../pipeline.ts";
import { requestToJson } from "../../settings/request-schema.ts";
import type { RequestSettings } from "../../settings/table.ts";
import type { ImageStore } from "../image-store.ts";
import type { LiveJob } from "./live.ts";
import type { StoredJob } from "./store.ts";
import type { JobImage } from "./types.ts";

/** The images of a job in a request. */
export interface JobPart {
  job: LiveJob;
  /** Their indices in the job. */
  indices: number[];
  seeds: bigint[];
}

/** The seeds of a job's images; `seed` was decided when it was submitted. */
export function seedsOf({ seed = 0n, imageCount = 1 }: RequestSettings): bigint[] {
  return seedsFrom(seed, imageCount);
}

/** Images of the job that are written, but were not noted by whoever was killed then. */
export async function unnotedImages(images: ImageStore, job: StoredJob): Promise<JobImage[]> {
  const found: JobImage[] = [];
  for (const [index, seed] of seedsOf(job.spec.request).entries()) {
    if (job.images.some((image) => image.index === index)) continue;
    const image = await images.find(job.id, index, seed);
    if (image !== null) found.push(image);
  }
  return found;
}

/** What of the job is to be generated. */
export function partOf(job: LiveJob): JobPart {
  const { request } = job.stored.spec;
  const seeds = seedsOf(request);
  const done = new Set(job.stored.images.map(({ index }) => index));
  const missing = [...seeds.keys()].filter((index) => !done.has(index));
  // Noise that images share, or count up together, comes of all of them.
  const indices = areIndependent(request) ? missing : [...seeds.keys()];
  return { job, indices, seeds: indices.map((index) => seeds[index]!) };
}

/** The request of one job or of several that are alike. */
export function requestOf(parts: readonly JobPart[], batchSize: number): GenerateRequest {
  const [first] = parts;
  const { seed: _, imageCount: __, ...request } = first!.job.stored.spec.request;
  const seeds = parts.flatMap((part) => part.seeds);
  if (parts.length === 1) return { ...request, seeds };
  const perImage = <T>(read: (request: RequestSettings) => T): T[] =>
    parts.flatMap(({ job, seeds: { length } }) => {
      return Array.from({ length }, () => read(job.stored.spec.request));
    });
  const hasGuidance = request.guidanceScale !== undefined;
  return {
    ...request,
    seeds,
    batchSize,
    prompt: perImage(({ prompt }) => prompt!),
    negativePrompt: perImage(({ negativePrompt }) => negativePrompt ?? null),
    ...(hasGuidance && { guidanceScale: perImage(({ guidanceScale }) => guidanceScale!) }),
  };
}

/** Equal for jobs that may share a request; null for one that is alone. */
export function batchKeyOf({ model, stored: { spec } }: LiveJob): string | null {
  const { prompt, negativePrompt: _, guidanceScale, seed: __, ...same } = spec.request;
  const { imageCount: ___, batchSize: ____, ...rest } = same;
  const isAlone = spec.inputs !== undefined || !areIndependent(spec.request);
  if (prompt === undefined || isAlone) return null;
  const hasGuidance = guidanceScale !== undefined;
  return JSON.stringify([
    model.id,
    model.vae,
    model.refiner,
    spec.previewSteps ?? 0,
    hasGuidance,
    requestToJson(rest),
  ]);
}

// --- internal ---

/** Whether each image is the same without the others. */
function areIndependent({ noiseOrder, compat, variationStrength }: RequestSettings): boolean {
  const order = noiseOrder ?? (compat === "comfyui" ? "batch" : "image");
  return order === "image" && (variationStrength ?? 0) === 0;
}
