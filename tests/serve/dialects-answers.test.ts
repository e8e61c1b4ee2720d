/**
 * The fields of answers, as the sources of A1111 (Forge), ComfyUI and OpenAI's package declare
 * them, and what requests become.
 */
import { describe, expect, test } from "bun:test";
import { readImage } from "../../src/image/read.ts";
import type { JobSpec } from "../../src/serve/jobs/types.ts";
import { defaultPrompt, refinedPrompt } from "../support/comfy-prompt.ts";
import { dialectApp } from "../support/dialect-app.ts";
import { colouredPng, holed, squareMask, turnedJpeg } from "../support/input-images.ts";

type Json = Record<string, unknown>;

/** The answer to a body, and the job that it made. */
async function sent(path: string, body: unknown) {
  const { post, jobs } = dialectApp();
  const response = await post(path, body);
  const answer = (await response.json()) as Json;
  return { status: response.status, answer, spec: jobs.submitted[0] };
}

const keysOf = (value: unknown) => Object.keys(value as object).sort();
const words = (text: string) => text.trim().split(/\s+/).sort();

describe("OpenAI", () => {
  const ask = async (fields: Json) => await sent("/v1/images/generations", fields);

  test("answers have the fields of its package", async () => {
    const { answer } = await ask({ prompt: "a", n: 2 });
    expect(keysOf(answer)).toEqual(
      words("background created data output_format quality size usage"),
    );
    expect(answer.data).toHaveLength(2);
    expect(keysOf(answer.usage)).toEqual(
      words("input_tokens input_tokens_details output_tokens total_tokens"),
    );
  });

  test.each<[Json, Partial<JobSpec["request"]>]>([
    [{ size: "96x64" }, { width: 96, height: 64 }],
    [{ quality: "hd" }, { quality: "exact" }],
    [{ quality: "medium" }, { quality: "balanced" }],
    [{ quality: "low" }, { quality: "fast" }],
    [
      { steps: 9, cfg_scale: 3, sampler: "Euler a" },
      { stepCount: 9, guidanceScale: 3 },
    ],
    [{ seed: "9223372036854775807" }, { seed: 2n ** 63n - 1n }],
    [
      { loras: ["style.safetensors:0.5"] },
      { loras: [{ file: "style", scale: 0.5, textScale: 0.5 }] },
    ],
  ])("%j becomes settings", async (fields, settings) => {
    const { status, spec } = await ask({ prompt: "a", ...fields });
    expect(status).toBe(200);
    expect(spec!.request).toMatchObject(settings as object);
  });

  test("an edit is of the size that its image has once it is turned", async () => {
    const { app, jobs } = dialectApp();
    const body = new FormData();
    body.append("prompt", "a");
    body.append("image", new Blob([await turnedJpeg()]));
    const response = await app.request("/v1/images/edits", { method: "POST", body });
    expect(response.status).toBe(200);
    expect(jobs.submitted[0]!.request).toMatchObject({ width: 64, height: 96 });
  });

  test.each<[string, (image: string, mask: string) => Json]>([
    ["as texts", (image, mask) => ({ image, mask })],
    [
      "as addresses in objects",
      (image, mask) => ({
        images: [{ image_url: `data:image/png;base64,${image}` }],
        mask: { image_url: `data:image/png;base64,${mask}` },
      }),
    ],
  ])("an edit in JSON has its images %s", async (_, fields) => {
    const size = { width: 96, height: 64 };
    const [image, mask] = [await colouredPng(size), await holed(await squareMask(size))];
    const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");
    const { post, jobs } = dialectApp();
    const body = { prompt: "a", strength: 0.5, ...fields(text(image), text(mask)) };
    const response = await post("/v1/images/edits", body);
    expect(response.status).toBe(200);
    expect(jobs.submitted[0]!.request).toMatchObject({ ...size, strength: 0.5 });
    expect(jobs.inputs[0]!.image).toEqual(image);
    expect(jobs.inputs[0]!.mask).not.toBeNull();
  });

  test("what networks read comes in base64 beside their settings", async () => {
    const { post, jobs } = dialectApp();
    const image = await colouredPng({ width: 8, height: 8 });
    const text = Buffer.from(image).toString("base64");
    const named = { refiner: "other", denoising_end: 0.8, vae: "fp16-fix.safetensors" };
    const seen = { ip_adapter: ["ip-adapter_sdxl"], ip_images: [`data:image/png;base64,${text}`] };
    const steered = { controlnet: ["canny"], control_images: [text] };
    const body = { prompt: "a", ...named, ...seen, ...steered };
    expect((await post("/v1/images/generations", body)).status).toBe(200);
    expect(jobs.submitted[0]).toMatchObject({ refiner: "other", vae: "fp16-fix" });
    expect(jobs.submitted[0]!.request).toMatchObject({ ipAdapter: ["ip-adapter_sdxl"] });
    expect(jobs.inputs[0]).toMatchObject({ controlImages: [image], ipImages: [image] });
  });

  test.each<[Json, string]>([
    [{}, "image"],
    [{ image: "https://a.example/b.png" }, "image"],
    [{ images: [{ file_id: "file-1" }] }, "image"],
    [{ image: "bm8=" }, "image"],
    [{ image: "AAAA", images: ["AAAA"] }, "image"],
  ])("an edit of %j is refused", async (fields, param) => {
    const { status, answer } = await sent("/v1/images/edits", { prompt: "a", ...fields });
    expect([status, (answer.error as Json).param]).toEqual([400, param]);
  });

  test.each<[Json, string, string]>([
    [{ prompt: undefined }, "prompt", "missing_required_parameter"],
    [{ background: "transparent" }, "background", "invalid_value"],
    [{ model: "gpt-image-1" }, "model", "model_not_found"],
    [{ loras: ["/etc/passwd"] }, "loras", "invalid_value"],
    [{ image: "/etc/passwd" }, "image", "unknown_parameter"],
    [{ size: "64" }, "size", "invalid_value"],
    [{ refiner: "x" }, "refiner", "model_not_found"],
    [{ vae: "x" }, "vae", "invalid_value"],
    [{ ip_images: ["https://a.example/b.png"] }, "ip_images", "invalid_value"],
  ])("%j is refused", async (fields, param, code) => {
    const { status, answer } = await ask({ prompt: "a", ...fields });
    expect(status).toBeOneOf([400, 404]);
    expect(keysOf(answer.error)).toEqual(words("message type param code"));
    expect(answer.error).toMatchObject({ param, code, type: "invalid_request_error" });
  });
});

describe("A1111", () => {
  const ask = async (fields: Json) => await sent("/sdapi/v1/txt2img", { prompt: "a", ...fields });

  test("answers have the fields of api/models.py and Processed.js", async () => {
    const { answer } = await ask({ seed: 5, batch_size: 2, n_iter: 2 });
    expect(keysOf(answer)).toEqual(words("images parameters info"));
    expect(answer.images).toHaveLength(4);
    const info = JSON.parse(String(answer.info));
    expect(keysOf(info)).toEqual(
      words(`prompt all_prompts negative_prompt all_negative_prompts seed all_seeds subseed
        all_subseeds subseed_strength width height sampler_name cfg_scale steps batch_size
        restore_faces face_restoration_model sd_model_name sd_model_hash sd_vae_name sd_vae_hash
        seed_resize_from_w seed_resize_from_h denoising_strength extra_generation_params
        index_of_first_image infotexts styles job_timestamp clip_skip
        is_using_inpainting_conditioning version warnings`),
    );
    expect(info).toMatchObject({ seed: 5, all_seeds: [5, 6, 7, 8], batch_size: 2 });
    expect(info.infotexts).toHaveLength(4);
  });

  test("progress and lists have theirs", async () => {
    const { get } = dialectApp();
    const fields = async (path: string) => {
      const answer = (await (await get(path)).json()) as Json | Json[];
      return keysOf(Array.isArray(answer) ? answer[0] : answer);
    };
    const progress = words("progress eta_relative state current_image textinfo");
    expect(await fields("/sdapi/v1/progress")).toEqual(progress);
    const model = words("title model_name hash sha256 filename config");
    expect(await fields("/sdapi/v1/sd-models")).toEqual(model);
    expect(await fields("/sdapi/v1/samplers")).toEqual(words("name aliases options"));
    const schedule = words("name label aliases default_rho need_inner_model");
    expect(await fields("/sdapi/v1/schedulers")).toEqual(schedule);
    expect(await fields("/sdapi/v1/loras")).toEqual(words("name alias path metadata"));
    expect(await fields("/sdapi/v1/embeddings")).toEqual(words("loaded skipped"));
    const upscaler = words("name model_name model_path model_url scale");
    expect(await fields("/sdapi/v1/upscalers")).toEqual(upscaler);
    expect(await fields("/sdapi/v1/memory")).toEqual(words("ram cuda"));
    expect(await fields("/sdapi/v1/scripts")).toEqual(words("txt2img img2img"));
  });

  test.each<[Json, object]>([
    [{ sampler_name: "DPM++ 2M Karras" }, { scheduler: "dpmpp_2m", sigmas: "karras" }],
    [{ sampler_name: "DPM++ 2M", scheduler: "karras" }, { sigmas: "karras" }],
    [
      { subseed: 3, subseed_strength: 0.5 },
      { variationSeed: 3n, variationStrength: 0.5 },
    ],
    [{ override_settings: { randn_source: "CPU" } }, { rng: "cpu" }],
    [
      { steps: "20", width: 250 },
      { stepCount: 20, width: 256 },
    ],
    [
      {
        enable_hr: true,
        hr_scale: 1.5,
        denoising_strength: 0.5,
        hr_upscaler: "Latent (antialiased)",
      },
      { hires: 1.5, hiresStrength: 0.5, hiresUpscaler: "latent" },
    ],
    [
      { enable_hr: true, hr_resize_x: 768, hr_upscaler: "Lanczos", hr_second_pass_steps: 7 },
      { hires: 1.5, hiresStrength: 0.75, hiresUpscaler: "lanczos", hiresSteps: 7 },
    ],
    [
      { enable_hr: true, hr_upscaler: "4x-sharp" },
      { hires: 2, hiresUpscaler: "4x-sharp" },
    ],
    [{ infotext: "b\nSteps: 9, Seed: 4, CFG scale: 2" }, { stepCount: 9, seed: 4n, prompt: "a" }],
  ])("%j becomes settings", async (fields, settings) => {
    const { status, spec } = await ask(fields);
    expect(status).toBe(200);
    expect(spec!.request).toMatchObject({ compat: "a1111", ...settings });
  });

  test("another VAE is one of the list", async () => {
    const asked = async (sd_vae: string) => await ask({ override_settings: { sd_vae } });
    expect((await asked("fp16-fix.safetensors")).spec!.vae).toBe("fp16-fix");
    expect((await asked("Automatic")).spec!.vae).toBeUndefined();
    expect((await asked("x")).answer.detail).toBe('The VAE "x" (sd_vae) is not there.');
  });

  test("units of ControlNet have their hints", async () => {
    const { post, jobs } = dialectApp();
    const hint = await colouredPng({ width: 8, height: 8 });
    const image = Buffer.from(hint).toString("base64");
    const unit = { model: "canny [abcdef12]", module: "canny", weight: 0.5, guidance_end: 0.75 };
    const off = { enabled: false, model: "none of ours" };
    const controlnet = { args: [{ ...unit, image }, off] };
    const response = await post("/sdapi/v1/txt2img", { alwayson_scripts: { controlnet } });
    expect(response.status).toBe(200);
    expect(jobs.submitted[0]!.request).toMatchObject({
      ...{ controlnet: ["canny"], controlScale: [0.5], controlStart: [], controlEnd: [0.75] },
      controlPreprocess: ["canny"],
    });
    expect(jobs.inputs[0]).toMatchObject({ image: null, mask: null, controlImages: [hint] });
  });

  test("a unit of an IP-Adapter shows an image", async () => {
    const { post, jobs } = dialectApp();
    const seen = await colouredPng({ width: 8, height: 8 });
    const image = Buffer.from(seen).toString("base64");
    const module = "CLIP-ViT-bigG (IPAdapter)";
    const unit = { model: "ip-adapter_sdxl [abcdef12]", module, weight: 0.5, guidance_end: 0.75 };
    const controlnet = { args: [{ ...unit, image }] };
    const response = await post("/sdapi/v1/txt2img", { alwayson_scripts: { controlnet } });
    expect(response.status).toBe(200);
    const { request } = jobs.submitted[0]!;
    expect(request).toMatchObject({
      ...{ ipAdapter: ["ip-adapter_sdxl"], ipScale: [0.5], ipStart: [], ipEnd: [0.75] },
    });
    expect(request).not.toHaveProperty("controlnet");
    expect(jobs.inputs[0]).toMatchObject({ ipImages: [seen] });
  });

  test.each<[Json, object]>([
    [{ refiner_checkpoint: "other [abcdef12]" }, { refiner: "other", denoisingEnd: 0.8 }],
    // A1111 changes to no model that it has, and not behind the last step.
    [{ refiner_checkpoint: "mini" }, {}],
    [{ refiner_checkpoint: "None" }, {}],
    [{ refiner_checkpoint: "other", refiner_switch_at: 1 }, {}],
    [{ refiner_checkpoint: "other", refiner_switch_at: 0.95, steps: 10 }, {}],
  ])("the refiner of %j", async (fields, wanted) => {
    const { status, spec } = await ask({ refiner_switch_at: 0.8, steps: 20, ...fields });
    const { refiner, request } = spec!;
    const found = { refiner, denoisingEnd: request.denoisingEnd };
    expect([status, found]).toEqual([
      200,
      { refiner: undefined, denoisingEnd: undefined, ...wanted },
    ]);
  });

  test.each<[Json, string]>([
    [{ model: "other" }, "ControlNet model not found: other"],
    [
      { model: "ip-adapter_sdxl", module: "InsightFace+CLIP-H (IPAdapter)" },
      'The preprocessor "InsightFace+CLIP-H (IPAdapter)" of an IP-Adapter (module) is not there.',
    ],
    [{ module: "depth_midas" }, 'The preprocessor "depth_midas" (module) is not there.'],
    [{ control_mode: 2 }, 'Of ControlNet, control_mode "2" is not there.'],
    [{ image: null }, "controlnet is enabled but no input image is given"],
  ])("a unit of %j is refused by name", async (fields, detail) => {
    const unit = { model: "canny", image: "AAAA", ...fields };
    const { status, answer } = await ask({ alwayson_scripts: { ControlNet: { args: [unit] } } });
    expect([status, answer.detail]).toEqual([422, detail]);
  });

  test.each<[Json, number, string]>([
    [{ sampler_name: "Restart" }, 404, "Sampler not found"],
    [
      { enable_hr: true, hr_upscaler: "R-ESRGAN 4x+" },
      422,
      'The upscaler "R-ESRGAN 4x+" (hr_upscaler) is not there.',
    ],
    [
      { enable_hr: true, hr_prompt: "b" },
      422,
      "Another prompt of the second pass (hr_prompt) is not there.",
    ],
    [
      { enable_hr: true, hr_resize_x: 768, hr_resize_y: 512 },
      422,
      "Another shape of the second pass (hr_resize_x, hr_resize_y) is not there.",
    ],
    [{ refiner_checkpoint: "x" }, 422, "Could not find checkpoint with name x"],
    [
      { refiner_checkpoint: "other" },
      422,
      "A refiner that takes all steps (refiner_switch_at of 0 or none) is not there.",
    ],
    [
      { refiner_checkpoint: "other", refiner_switch_at: 0.5, prompt: "<lora:style:1>" },
      422,
      "A LoRA of the refiner (refiner_checkpoint) is not there.",
    ],
    [
      { refiner_checkpoint: "other", refiner_switch_at: 0.5, enable_hr: true },
      422,
      "A refiner of the second pass (refiner_checkpoint with enable_hr) is not there.",
    ],
    [{ script_name: "X/Y/Z plot" }, 422, "Script 'X/Y/Z plot' not found"],
    [
      { alwayson_scripts: { ADetailer: { args: [1] } } },
      422,
      "always on script ADetailer not found",
    ],
    [{ override_settings: { sd_model_checkpoint: "x" } }, 422, "model 'x' not found"],
  ])("%j is refused by name", async (fields, status, detail) => {
    const found = await ask(fields);
    expect(found.status).toBe(status);
    expect(found.answer).toEqual({ error: "HTTPException", detail, body: "", errors: "" });
  });

  test("an enlarged image stands as its EXIF says", async () => {
    const { post } = dialectApp();
    const image = Buffer.from(await turnedJpeg()).toString("base64");
    const fields = { image, upscaler_1: "Nearest", upscaling_resize: 2 };
    const response = await post("/sdapi/v1/extra-single-image", fields);
    const { image: enlarged } = (await response.json()) as { image: string };
    const bytes = Buffer.from(enlarged, "base64");
    const { pixels, ...size } = await readImage(bytes, {
      ...{ name: "enlarged", channels: 1, background: "#000000" },
    });
    expect(size).toEqual({ width: 128, height: 192 });
    // White is at the top, which was the left.
    expect([pixels[0]! > 200, pixels.at(-1)! < 50]).toEqual([true, true]);
  });

  test("an image that breaks off is no error of the server", async () => {
    const { post } = dialectApp();
    const whole = await colouredPng({ width: 64, height: 64 });
    const image = Buffer.from(whole.subarray(0, 200)).toString("base64");
    const fields = { image, upscaler_1: "Nearest", upscaling_resize: 2 };
    const response = await post("/sdapi/v1/extra-single-image", fields);
    expect(response.status).toBe(422);
    expect(await response.json()).toMatchObject({ detail: "Invalid encoded image" });
  });

  test("fields that cannot be read are listed", async () => {
    const { status, answer } = await ask({ steps: "many", width: [] });
    expect(status).toBe(422);
    const loc = (name: string) => ({ loc: ["body", name] });
    expect(answer).toMatchObject({ detail: [loc("steps"), loc("width")] });
  });
});

describe("A1111 from an image", () => {
  const size = { width: 8, height: 8 };
  const encoded = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");
  const ask = async (fields: Json) => {
    const { post, jobs } = dialectApp();
    const image = encoded(await colouredPng(size));
    const body = { prompt: "a", init_images: [image], ...fields };
    const response = await post("/sdapi/v1/img2img", body);
    const answer = (await response.json()) as Json;
    return { status: response.status, answer, spec: jobs.submitted[0], inputs: jobs.inputs[0] };
  };

  test.each<[Json, object]>([
    [{}, { strength: 0.75, resize: "stretch" }],
    [
      { denoising_strength: 0.5, resize_mode: 2 },
      { strength: 0.5, resize: "fit" },
    ],
    [{ mask: true, inpainting_fill: 0 }, { maskContent: "fill" }],
    [{ mask: true }, { maskArea: "masked", maskPadding: 0, maskBlur: 4, invertMask: false }],
    [
      { mask: true, inpaint_full_res: false, mask_blur: 0, inpainting_mask_invert: 1 },
      { maskArea: "whole", maskBlur: 0, invertMask: true },
    ],
  ])("%j becomes settings", async ({ mask, ...fields }, settings) => {
    const sentMask = mask && { mask: encoded(await squareMask(size)), inpainting_fill: 1 };
    const { status, answer, spec, inputs } = await ask({ ...(sentMask as Json), ...fields });
    expect(status).toBe(200);
    expect(spec!.request).toMatchObject({ compat: "a1111", ...settings });
    expect(inputs!.image).toEqual(await colouredPng(size));
    expect(inputs!.mask === null).toBe(mask === undefined);
    expect(answer.parameters).toMatchObject({ init_images: null, mask: null });
    const { denoising_strength, warnings } = JSON.parse(String(answer.info));
    expect([denoising_strength, warnings]).toEqual([spec!.request.strength, []]);
  });

  test("a mask may be the alpha of its image", async () => {
    const mask = encoded(await holed(await squareMask(size)));
    const { inputs, answer } = await ask({ mask });
    const read = await readImage(inputs!.mask!, {
      ...{ name: "mask", channels: 1, background: "#000000" },
    });
    const [corner, middle] = [read.pixels[0], read.pixels[4 * 8 + 4]];
    expect([corner, middle]).toEqual([255, 0]);
    expect(JSON.parse(String(answer.info)).warnings).toEqual([]);
  });

  test("a mask may be blurred by side, inverted before", async () => {
    const mask = encoded(await squareMask({ width: 64, height: 64 }));
    const blur = { mask_blur_x: 4, mask_blur_y: 0, inpainting_mask_invert: 1, mask };
    const { inputs, spec } = await ask(blur);
    expect(spec!.request.invertMask).toBeUndefined();
    const { pixels } = await readImage(inputs!.mask!, {
      ...{ name: "mask", channels: 1, background: "#000000" },
    });
    const at = (column: number, row: number) => pixels[row * 64 + column]!;
    expect([at(0, 0), at(32, 32), at(32, 15), at(32, 16)]).toEqual([255, 0, 255, 0]);
    // Half of the edge, and a standard deviation into it.
    expect(Math.abs((at(15, 32) + at(16, 32)) / 2 - 127)).toBeLessThan(6);
    expect(Math.abs(at(20, 32) - 255 * 0.13)).toBeLessThan(8);
  });

  test.each<[Json, number, unknown]>([
    [{ init_images: [] }, 404, "Init image not found"],
    [{ init_images: ["a", "b"] }, 422, "A second image to start from (init_images) is not there."],
    [{ init_images: ["http://a/b.png"] }, 422, "Requests not allowed"],
    [{ mask: "bm9uZQ==" }, 422, "Invalid encoded image"],
    [{ resize_mode: 3 }, 422, "The enlarged latent (resize_mode 3) is not there."],
    [
      { mask: "AAAA", inpainting_fill: 2 },
      422,
      "Noise in the masked latent (inpainting_fill 2) is not there.",
    ],
    [{ denoising_strength: 2 }, 422, [{ loc: ["body", "denoising_strength"] }]],
  ])("%j is refused by name", async (fields, status, detail) => {
    const found = await ask(fields);
    expect(found.status).toBe(status);
    expect(found.answer).toMatchObject({ detail });
  });
});

describe("ComfyUI", () => {
  const ask = async (inputs: Record<string, Json>, more: Json = {}) => {
    return await sent("/prompt", { prompt: { ...defaultPrompt(inputs), ...more } });
  };

  test("a prompt is queued, and its history has the fields of execution.py", async () => {
    const { post, get, jobs } = dialectApp();
    const asked = { prompt: defaultPrompt(), prompt_id: "mine", client_id: "c" };
    const answer = (await (await post("/api/prompt", asked)).json()) as Json;
    expect(answer).toEqual({ prompt_id: "mine", number: 0, node_errors: {} });
    await jobs.wait(jobs.list()[0]!.id);
    const { mine } = (await (await get("/history/mine")).json()) as { mine: Json };
    expect(keysOf(mine)).toEqual(words("prompt outputs status meta"));
    expect(mine.prompt).toMatchObject([0, "mine", {}, { client_id: "c" }, ["9"]]);
    const image = { subfolder: "", type: "output", filename: expect.any(String) };
    expect(mine.outputs).toEqual({ 9: { images: [image] } });
    const { messages, ...status } = mine.status as { messages: [string][] };
    expect(status).toEqual({ status_str: "success", completed: true } as never);
    expect(messages.map(([type]) => type)).toEqual([
      "execution_start",
      "execution_cached",
      "execution_success",
    ]);
    expect(await (await get("/queue")).json()).toEqual({ queue_running: [], queue_pending: [] });
  });

  test("nodes are described as in server.py", async () => {
    const { get } = dialectApp();
    const info = (await (await get("/object_info/LoraLoader")).json()) as { LoraLoader: Json };
    expect(keysOf(info.LoraLoader)).toEqual(
      words(`input input_order output output_is_list output_name name display_name description
        python_module category output_node`),
    );
    expect(info.LoraLoader.input).toMatchObject({ required: { lora_name: [["style"]] } });
  });

  const lora = {
    class_type: "LoraLoader",
    inputs: {
      ...{ model: ["4", 0], clip: ["4", 1], lora_name: "style.safetensors" },
      ...{ strength_model: 0.5, strength_clip: 0.25 },
    },
  };
  const through = { 6: { clip: ["10", 1] }, 7: { clip: ["10", 1] } };

  test.each<[string, Record<string, Json>, Json, object]>([
    ["a batch", { 5: { batch_size: 3 } }, {}, { imageCount: 3, seed: 42n }],
    [
      "a LoRA",
      { 3: { model: ["10", 0] }, ...through },
      { 10: lora },
      {
        loras: [{ file: "style", scale: 0.5, textScale: 0.25 }],
      },
    ],
    [
      "a negative prompt of zeros",
      { 3: { negative: ["11", 0] } },
      {
        11: { class_type: "ConditioningZeroOut", inputs: { conditioning: ["7", 0] } },
      },
      { emptyNegative: "zeros" },
    ],
    [
      "a primitive",
      { 3: { steps: ["12", 0] } },
      {
        12: { class_type: "PrimitiveInt", inputs: { value: 9 } },
      },
      { stepCount: 9 },
    ],
  ])("%s becomes settings", async (_, inputs, more, settings) => {
    const { status, answer, spec } = await ask(inputs, more);
    expect([status, answer.error]).toEqual([200, undefined]);
    expect(spec!.request).toMatchObject({ compat: "comfyui", ...settings });
    expect(spec!.request.noiseBatch).toBeUndefined();
  });

  test("another VAE is that of the job", async () => {
    const loader = { class_type: "VAELoader", inputs: { vae_name: "fp16-fix.safetensors" } };
    const { status, spec } = await ask({ 8: { vae: ["18", 0] } }, { 18: loader });
    expect([status, spec!.vae]).toEqual([200, "fp16-fix"]);
  });

  test("a base model and a refiner share their steps", async () => {
    const { status, answer, spec } = await sent("/prompt", { prompt: refinedPrompt() });
    expect([status, answer.error]).toEqual([200, undefined]);
    expect(spec).toMatchObject({ model: "mini", refiner: "other", vae: "other" });
    const { request, dialectData } = spec!;
    expect(request).toMatchObject({ stepCount: 5, denoisingEnd: 0.6, seed: 42n });
    expect(dialectData).toMatchObject({ first: "10", sampler: "11", firstSteps: 3 });
  });

  test("with prompts of SDXL, and the base model's VAE", async () => {
    const size = { width: 64, height: 64 };
    const target = { target_width: 64, target_height: 64, crop_w: 0, crop_h: 0 };
    const nodes: Json = refinedPrompt({ 17: { vae: ["4", 2] } });
    const text = { text_l: "a red circle", text_g: "round", clip: ["4", 1], ...size, ...target };
    nodes[6] = { class_type: "CLIPTextEncodeSDXL", inputs: text };
    const scored = { text: "a red circle", clip: ["12", 1], ascore: 6, ...size };
    nodes[15] = { class_type: "CLIPTextEncodeSDXLRefiner", inputs: scored };
    const { status, answer, spec } = await sent("/prompt", { prompt: nodes });
    expect([status, answer.error]).toEqual([200, undefined]);
    expect(spec!.request).toMatchObject({ prompt: "a red circle", prompt2: "round" });
    expect(spec!.vae).toBeUndefined();
  });

  test.each<[string, string, Record<string, Json>]>([
    ["10", "return_with_leftover_noise", { 10: { return_with_leftover_noise: "disable" } }],
    ["10", "end_at_step", { 10: { end_at_step: 5 } }],
    [
      "10",
      "sampler_name",
      { 10: { sampler_name: "euler_ancestral" }, 11: { sampler_name: "euler_ancestral" } },
    ],
    ["11", "add_noise", { 11: { add_noise: "enable" } }],
    ["11", "start_at_step", { 11: { start_at_step: 2 } }],
    ["11", "end_at_step", { 11: { end_at_step: 4 } }],
    ["11", "steps", { 11: { steps: 6 } }],
    ["11", "model", { 11: { model: ["4", 0] } }],
    ["15", "text", { 15: { text: "another" } }],
    ["16", "clip", { 16: { clip: ["4", 1] } }],
  ])("of two models at %s.%s it is refused", async (node, input, inputs) => {
    const { status, answer } = await sent("/prompt", { prompt: refinedPrompt(inputs) });
    expect(status).toBe(400);
    const { errors } = (answer.node_errors as Record<string, { errors: Json[] }>)[node]!;
    expect(String(errors[0]!.details)).toStartWith(`${input} - `);
  });

  const second = (inputs: Json = {}) => ({
    14: {
      class_type: "KSampler",
      inputs: {
        ...defaultPrompt()[3]!.inputs,
        steps: 6,
        denoise: 0.5,
        latent_image: ["15", 0],
        ...inputs,
      },
    },
    15: {
      class_type: "LatentUpscaleBy",
      inputs: { samples: ["3", 0], upscale_method: "bicubic", scale_by: 1.5 },
    },
  });
  const twice = { 8: { samples: ["14", 0] } };

  test("a second sampler of a larger latent is a second pass", async () => {
    const { status, answer, spec } = await ask(twice, second());
    expect([status, answer.error]).toEqual([200, undefined]);
    const passes = { stepCount: 4, hires: 1.5, hiresSteps: 6, hiresStrength: 0.5 };
    expect(spec!.request).toMatchObject({ ...passes, hiresUpscaler: "latent-bicubic" });
    expect(spec!.dialectData).toMatchObject({ first: "3", sampler: "14" });
  });

  test("so is one of a larger image", async () => {
    const through = {
      ...second({ latent_image: ["17", 0] }),
      15: { class_type: "VAEDecode", inputs: { samples: ["3", 0], vae: ["4", 2] } },
      16: {
        class_type: "ImageScale",
        inputs: {
          image: ["15", 0],
          upscale_method: "lanczos",
          width: 128,
          height: 0,
          crop: "disabled",
        },
      },
      17: { class_type: "VAEEncode", inputs: { pixels: ["16", 0], vae: ["4", 2] } },
    };
    const { answer, spec } = await ask(twice, through);
    expect(answer.error).toBeUndefined();
    expect(spec!.request).toMatchObject({ hires: 2, hiresUpscaler: "lanczos" });
  });

  const upscaled = {
    20: { class_type: "UpscaleModelLoader", inputs: { model_name: "4x-sharp.safetensors" } },
    21: {
      class_type: "ImageUpscaleWithModel",
      inputs: { upscale_model: ["20", 0], image: ["8", 0] },
    },
  };
  const scaled = (inputs: Json) => ({
    22: { class_type: "ImageScaleBy", inputs: { upscale_method: "lanczos", ...inputs } },
  });

  test("an upscaler behind the decoder enlarges alone", async () => {
    const { answer, spec } = await ask({ 9: { images: ["21", 0] } }, upscaled);
    expect(answer.error).toBeUndefined();
    expect(spec!.request).toMatchObject({ hires: 4, hiresUpscaler: "4x-sharp", hiresStrength: 0 });
    const by = scaled({ image: ["21", 0], scale_by: 0.5 });
    const smaller = await ask({ 9: { images: ["22", 0] } }, { ...upscaled, ...by });
    expect(smaller.spec!.request).toMatchObject({ hires: 2, hiresUpscaler: "4x-sharp" });
  });

  test("and between two samplers it is that of the second pass", async () => {
    const between = {
      ...second({ latent_image: ["17", 0] }),
      ...upscaled,
      15: { class_type: "VAEDecode", inputs: { samples: ["3", 0], vae: ["4", 2] } },
      17: { class_type: "VAEEncode", inputs: { pixels: ["22", 0], vae: ["4", 2] } },
      21: { ...upscaled[21], inputs: { ...upscaled[21].inputs, image: ["15", 0] } },
      ...scaled({ image: ["21", 0], scale_by: 0.375 }),
    };
    const { answer, spec } = await ask(twice, between);
    expect(answer.error).toBeUndefined();
    const passes = { hires: 1.5, hiresUpscaler: "4x-sharp", hiresStrength: 0.5 };
    expect(spec!.request).toMatchObject(passes);
  });

  test.each<[string, string, Json, Json]>([
    ["21", "image", { 9: { images: ["21", 0] }, 8: { samples: ["14", 0] } }, second()],
    ["22", "scale_by", { 9: { images: ["22", 0] } }, scaled({ image: ["21", 0], scale_by: 0.1 })],
    [
      "22",
      "upscale_method",
      { 9: { images: ["22", 0] } },
      {
        ...scaled({ image: ["8", 0], scale_by: 2, upscale_method: "bicubic" }),
      },
    ],
    ["22", "image", { 9: { images: ["22", 0] } }, scaled({ image: ["8", 0], scale_by: 1.2 })],
    [
      "20",
      "model_name",
      { 20: {} },
      {
        20: { class_type: "UpscaleModelLoader", inputs: { model_name: "none of ours" } },
        21: { ...upscaled[21] },
        9: { class_type: "SaveImage", inputs: { images: ["21", 0], filename_prefix: "a" } },
      },
    ],
  ])("an upscaler at %s.%s is refused", async (node, input, inputs, more) => {
    const { status, answer } = await ask(inputs as never, { ...upscaled, ...more });
    expect(status).toBe(400);
    const { errors } = (answer.node_errors as Record<string, { errors: Json[] }>)[node]!;
    expect(String(errors[0]!.details)).toStartWith(input);
  });

  test.each<[string, Json]>([
    ["seed", { seed: 43 }],
    ["cfg", { cfg: 4 }],
    ["positive", { positive: ["7", 0] }],
    ["denoise", { denoise: 0 }],
  ])("a second sampler of another %s is refused", async (input, inputs) => {
    const { answer } = await ask(twice, second(inputs));
    const { 14: node } = answer.node_errors as Record<string, { errors: Json[] }>;
    expect(node!.errors[0]!.extra_info).toEqual({ input_name: input });
  });

  test("other nodes are refused by name", async () => {
    const { status, answer } = await ask({}, { 13: { class_type: "FreeU_V2", inputs: {} } });
    expect(status).toBe(400);
    expect(answer).toMatchObject({
      error: {
        type: "invalid_prompt",
        message: "Cannot execute because node FreeU_V2 does not exist.",
      },
      node_errors: {},
    });
  });

  test.each<[string, Record<string, Json>, Json, string, string]>([
    ["a value not in a list", { 4: { ckpt_name: "x" } }, {}, "4", "value_not_in_list"],
    ["too many steps", { 3: { steps: 100_000 } }, {}, "3", "value_bigger_than_max"],
    ["another type", { 3: { model: ["4", 1] } }, {}, "3", "return_type_mismatch"],
    ["a link to nothing", { 8: { samples: ["99", 0] } }, {}, "8", "bad_linked_input"],
    ["a second start", { 3: { denoise: 0.5 } }, {}, "3", "custom_validation_failed"],
    [
      "a LoRA of one prompt",
      { 6: { clip: ["10", 1] } },
      { 10: lora },
      "6",
      "custom_validation_failed",
    ],
    ["a circle", { 3: { latent_image: ["3", 0] } }, {}, "3", "dependency_cycle"],
  ])("%s is refused at its node", async (_, inputs, more, node, type) => {
    const { status, answer } = await ask(inputs, more);
    expect(status).toBe(400);
    const { errors, ...about } = (answer.node_errors as Record<string, Json>)[node] as {
      errors: Json[];
    };
    expect(keysOf(about)).toEqual(words("class_type dependent_outputs"));
    expect(keysOf(errors[0])).toEqual(words("type message details extra_info"));
    expect(errors[0]!.type).toBe(type);
  });
});
