/**
 * A job that has ended as A1111's txt2img and img2img answer it.
 * Source: A1111 and Forge, modules/processing.py (Processed.js) and modules/api/models.py.
 */
import { parseInfotext } from "../../../metadata/infotext.ts";
import { textsInBytes } from "../../../metadata.ts";
import { samplerRows } from "../../../settings/samplers.ts";
import type { JobService, JobView } from "../../jobs/types.ts";
import type { CommonFields } from "./fields.ts";
import type { JobData } from "./job-data.ts";

/** `images` is empty where the client wants none; `info` is JSON in a text. */
export async function imagesAnswer(
  jobs: JobService,
  job: JobView,
  fields: CommonFields,
  data: JobData,
) {
  const files = await Promise.all(job.images.map(({ index }) => jobs.imageBytes(job.id, index)));
  const infotexts = files.map((bytes) => textsInBytes(bytes).parameters ?? "");
  const info = infoOf(job, data, infotexts);
  return {
    images: fields.send_images ? files.map((bytes) => Buffer.from(bytes).toString("base64")) : [],
    parameters: fields,
    info: JSON.stringify(info),
  };
}

/** As A1111's clocks write a time, in local time. */
export function timestampOf(milliseconds: number): string {
  const date = new Date(milliseconds);
  const parts = [
    ...[date.getFullYear(), date.getMonth() + 1, date.getDate()],
    ...[date.getHours(), date.getMinutes(), date.getSeconds()],
  ];
  return parts.map((part) => String(part).padStart(2, "0")).join("");
}

// --- internal ---

function infoOf(job: JobView, data: JobData, infotexts: readonly string[]) {
  const { request } = job.spec;
  const { scheduler } = request;
  const { images } = job;
  const fields = new Map(parseInfotext(infotexts[0] ?? "").fields);
  const strength = request.variationStrength ?? 0;
  const seeds = images.map(({ seed }) => Number(seed));
  const subseeds = images.map(({ index }) => Number(BigInt(data.subseed) + BigInt(index)));
  const [prompt, negative] = [request.prompt ?? "", request.negativePrompt ?? ""];
  return {
    prompt,
    all_prompts: images.map(() => prompt),
    negative_prompt: negative,
    all_negative_prompts: images.map(() => negative),
    seed: Number(data.seed),
    all_seeds: seeds,
    subseed: Number(data.subseed),
    all_subseeds: subseeds,
    subseed_strength: strength,
    // Of the first pass, where there are two.
    width: (request.hires ? undefined : images[0]?.width) ?? request.width,
    height: (request.hires ? undefined : images[0]?.height) ?? request.height,
    sampler_name: fields.get("Sampler") ?? (scheduler ? samplerRows[scheduler].others[0] : ""),
    cfg_scale: request.guidanceScale,
    steps: request.stepCount,
    batch_size: Math.ceil((request.imageCount ?? 1) / data.iterations),
    ...{ restore_faces: false, face_restoration_model: null },
    sd_model_name: data.model.name,
    sd_model_hash: data.model.hash ?? "",
    ...{ sd_vae_name: null, sd_vae_hash: null },
    ...{ seed_resize_from_w: -1, seed_resize_from_h: -1 },
    denoising_strength: request.strength ?? request.hiresStrength ?? null,
    extra_generation_params: {},
    index_of_first_image: 0,
    infotexts,
    styles: [],
    job_timestamp: timestampOf(job.startedAt ?? job.createdAt),
    clip_skip: 1,
    is_using_inpainting_conditioning: false,
    version: fields.get("Version") ?? "BasedXL",
    warnings: [...data.warnings, ...job.warnings],
  };
}
