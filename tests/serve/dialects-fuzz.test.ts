/**
 * Random requests to each dialect, valid and broken ones: the server never answers with an error of
 * its own, and every job that it makes has settings as a request's schema allows them.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { rmSync } from "node:fs";
import fc from "fast-check";
import * as v from "valibot";
import type { JobSpec } from "../../src/serve/jobs/types.ts";
import { requestSchema } from "../../src/settings/request-schema.ts";
import type { SettingKey } from "../../src/settings/table.ts";
import { asField } from "../../src/settings/values.ts";
import { defaultPrompt } from "../support/comfy-prompt.ts";
import { dialectApp } from "../support/dialect-app.ts";
import { seed, seedName } from "../support/seed.ts";

// The cores may be busy.
setDefaultTimeout(120_000);

const requestCount = 10_000;
const atOnce = 50;

interface Sent {
  method: string;
  path: string;
  body?: string | FormData;
}

/** Values that no field expects. */
const strange = fc.oneof(
  fc.constantFrom<unknown>(null, true, "", -1, 0, 1, 2 ** 53, 1e300, "9223372036854775808"),
  fc.constantFrom<unknown>([], {}, [[]], ["4", 7], ["no", 0], "__proto__", "../../etc/passwd"),
  fc.double(),
  fc.integer({ min: -5, max: 5000 }),
  fc.string({ maxLength: 12 }),
  fc.jsonValue({ maxDepth: 2 }),
);

/** Fields at their usual values, some of them strange or missing. */
function bodyOf(usual: Record<string, unknown>): fc.Arbitrary<Record<string, unknown>> {
  const names = [...Object.keys(usual), "unknown", "__proto__"];
  const change = fc.tuple(fc.constantFrom(...names), fc.option(strange, { nil: undefined }));
  return fc.array(change, { maxLength: 3 }).map((changes) => {
    return { ...usual, ...Object.fromEntries(changes) };
  });
}

const junk = fc.oneof(
  fc.constantFrom("", "[]", "null", "{", '{"a":', '"text"', "[".repeat(300), "NaN"),
  fc.json({ maxDepth: 2 }),
  fc.string({ maxLength: 30 }),
);

function posts(path: string, body: fc.Arbitrary<unknown>): fc.Arbitrary<Sent> {
  const text = fc.oneof(
    { weight: 12, arbitrary: body.map((each) => JSON.stringify(each) ?? "") },
    { weight: 1, arbitrary: junk },
  );
  return text.map((each) => ({ method: "POST", path, body: each }));
}

function gets(paths: readonly string[]): fc.Arbitrary<Sent> {
  return fc
    .tuple(fc.constantFrom(...paths), fc.webPath({ size: "-1" }), fc.webQueryParameters())
    .map(([path, tail, query]) => ({ method: "GET", path: `${path}${tail}?${query}` }));
}

const openAi = fc.oneof(
  { weight: 6, arbitrary: posts("/v1/images/generations", bodyOf(generation())) },
  posts("/v1/images/edits", bodyOf({ ...generation(), image: pixel(), mask: pixel() })),
  edits(),
  gets(["/v1/models", "/v1/models/", "/v1/models/mini", "/v1/other"]),
);

const a1111 = fc.oneof(
  { weight: 6, arbitrary: posts("/sdapi/v1/txt2img", bodyOf(textToImage())) },
  posts("/sdapi/v1/options", bodyOf({ sd_model_checkpoint: "mini", samples_format: "png" })),
  posts(
    "/sdapi/v1/extra-single-image",
    bodyOf({ image: pixel(), upscaler_1: "Lanczos", upscaling_resize: 2, resize_mode: 0 }),
  ),
  posts("/sdapi/v1/png-info", bodyOf({ image: pixel() })),
  posts("/internal/progress", bodyOf({ id_task: "task(a)", id_live_preview: -1 })),
  posts("/sdapi/v1/interrupt", fc.object()),
  posts("/sdapi/v1/img2img", bodyOf(imageToImage())),
  gets(
    ["progress", "options", "samplers", "sd-models", "memory"].map((name) => `/sdapi/v1/${name}`),
  ),
);

const comfyUi = fc.oneof(
  { weight: 6, arbitrary: posts("/prompt", prompts()) },
  posts("/api/prompt", bodyOf({ prompt: defaultPrompt(), prompt_id: "one", number: 1 })),
  posts("/queue", bodyOf({ delete: ["one"], clear: false })),
  posts("/history", bodyOf({ delete: ["one"], clear: false })),
  posts("/interrupt", bodyOf({ prompt_id: "one" })),
  fc.oneof({ weight: 3, arbitrary: posts("/upload/image", fc.object()) }, uploads()),
  gets(["/history", "/history/one", "/queue", "/prompt", "/object_info", "/object_info/KSampler"]),
  gets(["/view?filename=a", "/view?preview=x;99&filename=", "/models", "/models/loras", "/ws"]),
);

test(`10,000 requests to OpenAI's dialect (${seedName})`, async () => await fuzz(openAi));

test(`10,000 requests to A1111's dialect (${seedName})`, async () => await fuzz(a1111));

test(`10,000 requests to ComfyUI's dialect (${seedName})`, async () => await fuzz(comfyUi));

async function fuzz(arbitrary: fc.Arbitrary<Sent>): Promise<void> {
  const requests = fc.sample(arbitrary, { numRuns: requestCount, seed });
  const { app, jobs, folder } = dialectApp();
  const statuses = new Map<number, number>();
  for (let at = 0; at < requests.length; at += atOnce) {
    const some = requests.slice(at, at + atOnce);
    await Promise.all(
      some.map(async ({ method, path, body }) => {
        const response = await app.request(path, { method, ...(body !== undefined && { body }) });
        const text = await response.text();
        const isOfServer = response.status === 500;
        if (isOfServer) throw new Error(`${method} ${path} ${body}: ${response.status} ${text}`);
        statuses.set(response.status, (statuses.get(response.status) ?? 0) + 1);
      }),
    );
    jobs.inputs.length = 0;
    for (const spec of jobs.submitted.splice(0)) checkSpec(spec);
  }
  rmSync(folder, { recursive: true, force: true });
  // Some are taken and some are not.
  expect(statuses.get(200)).toBeGreaterThan(requestCount / 10);
  expect(requestCount - statuses.get(200)!).toBeGreaterThan(requestCount / 10);
}

/** The settings as JSON, which the schema must take. */
function checkSpec({ request, dialectData }: JobSpec): void {
  const fields = Object.entries(request).map(([key, value]) => {
    const plain = typeof value === "bigint" ? String(value) : value;
    return [asField(key as SettingKey), key === "loras" ? lorasOf(plain) : plain];
  });
  const result = v.safeParse(requestSchema, Object.fromEntries(fields));
  if (!result.success) throw new Error(JSON.stringify(result.issues.map(({ message }) => message)));
  JSON.stringify(dialectData);
}

function lorasOf(loras: unknown): unknown {
  return (loras as { textScale?: number }[]).map(({ textScale: text_scale, ...lora }) => {
    return { ...lora, text_scale };
  });
}

function generation(): Record<string, unknown> {
  return {
    ...{ prompt: "a house", model: "mini", n: 1, size: "64x64", quality: "auto", steps: 2 },
    ...{ output_format: "png", output_compression: 90, background: "auto", stream: false },
    ...{ partial_images: 1, response_format: "b64_json", style: "vivid", user: "me", seed: 3 },
    ...{ negative_prompt: "", guidance_scale: 5, scheduler: "euler", loras: ["style:0.5"] },
    ...{ moderation: "low", cfg_scale: 4, sampler: "Euler a", deep_cache: "2" },
  };
}

/** Forms of several parts. */
function edits(): fc.Arbitrary<Sent> {
  const file = new Blob([Buffer.from(pixel(), "base64")]);
  const { loras: _, ...fields } = generation();
  const more = { "image[]": file, mask: file, size: "auto", strength: 0.5 };
  return bodyOf({ ...fields, ...more }).map((each) => {
    return { method: "POST", path: "/v1/images/edits", body: formOf(each, "image.png") };
  });
}

function textToImage(): Record<string, unknown> {
  return {
    ...{ prompt: "a house", negative_prompt: "", steps: 2, cfg_scale: 7, width: 64, height: 64 },
    ...{ seed: -1, subseed: -1, subseed_strength: 0, sampler_name: "Euler a", batch_size: 1 },
    ...{ n_iter: 1, scheduler: "Karras", eta: 1, s_noise: 1, styles: [], enable_hr: false },
    ...{ override_settings: { sd_model_checkpoint: "mini" }, alwayson_scripts: {} },
    ...{ send_images: true, script_name: null, infotext: "a\nSteps: 3, Seed: 4, CFG scale: 2" },
    ...{ force_task_id: "task(a)", tiling: false, restore_faces: false },
  };
}

function imageToImage(): Record<string, unknown> {
  const { enable_hr: _, ...common } = textToImage();
  return {
    ...{ ...common, init_images: [pixel()], mask: pixel(), denoising_strength: 0.5 },
    ...{ resize_mode: 1, mask_blur: 4, mask_blur_x: 4, mask_blur_y: 4, mask_round: true },
    ...{ inpainting_fill: 1, inpaint_full_res: true, inpaint_full_res_padding: 32 },
    ...{ inpainting_mask_invert: 0, include_init_images: false, latent_mask: null },
    ...{ initial_noise_multiplier: 1, image_cfg_scale: 1.5 },
  };
}

/** The default workflow with nodes of images beside it, with inputs of nodes changed. */
function prompts(): fc.Arbitrary<unknown> {
  const vae = ["4", 2];
  const more = {
    10: { class_type: "LoadImage", inputs: { image: "a.png" } },
    11: {
      class_type: "ImageScale",
      inputs: { image: ["10", 0], upscale_method: "area", width: 8, height: 0, crop: "center" },
    },
    12: {
      class_type: "VAEEncodeForInpaint",
      inputs: { pixels: ["11", 0], mask: ["10", 1], grow_mask_by: 6, vae },
    },
  };
  const ids = [...Object.keys(defaultPrompt()), ...Object.keys(more)];
  const names = ["seed", "steps", "cfg", "sampler_name", "model", "positive", "latent_image"];
  const others = ["ckpt_name", "width", "batch_size", "clip", "text", "samples", "vae", "images"];
  const link = fc.tuple(fc.constantFrom(...ids), fc.integer({ min: 0, max: 3 }));
  const other = fc.tuple(
    fc.constantFrom(...ids),
    fc.constantFrom(...names, ...others, "denoise", "image", "pixels", "mask"),
    fc.oneof(strange, link),
  );
  const fromImage = fc.constant(["3", "latent_image", ["12", 0]] as const);
  const change = fc.oneof({ weight: 15, arbitrary: other }, { weight: 1, arbitrary: fromImage });
  return fc.array(change, { maxLength: 3 }).map((changes) => {
    const prompt: Record<string, { inputs: Record<string, unknown> }> = {
      ...defaultPrompt(),
      ...structuredClone(more),
    };
    for (const [id, name, value] of changes) prompt[id]!.inputs[name] = value;
    return { prompt, client_id: "one" };
  });
}

/** Images for prompts, and masks of them. */
function uploads(): fc.Arbitrary<Sent> {
  const image = new Blob([Buffer.from(pixel(), "base64")]);
  const original_ref = JSON.stringify({ filename: "a.png", type: "input" });
  const fields = { image, original_ref, overwrite: "true", subfolder: "own", type: "input" };
  const names = fc.oneof({ weight: 3, arbitrary: fc.constant("a.png") }, fc.string());
  const paths = fc.constantFrom("/upload/image", "/upload/mask");
  return fc.tuple(paths, names, bodyOf(fields)).map(([path, name, each]) => {
    return { method: "POST", path, body: formOf(each, name) };
  });
}

function formOf(fields: Record<string, unknown>, fileName: string): FormData {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (value instanceof Blob) form.append(name, value, fileName);
    else if (value !== undefined) form.append(name, String(value));
  }
  return form;
}

/** A PNG of one pixel, in base64. */
function pixel(): string {
  return (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5Erk" +
    "Jggg=="
  );
}
