/**
 * The fields of answers as the source of A1111 (Forge) declares them, and what requests become.
 */
import { describe, expect, test } from "bun:test";
import { readImage } from "../../src/image/read.ts";
import type { ControlPreprocess } from "../../src/settings/control.ts";
import { dialectApp, keysOf, sent, words } from "../support/dialect-app.ts";
import { colouredPng, holed, squareMask, turnedJpeg } from "../support/input-images.ts";

type Json = Record<string, unknown>;

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

  test.each<[Json, ControlPreprocess[]]>([
    [{ module: "None" }, []],
    [{ module: "tile_resample" }, []],
    [{ module: "tile_resample", threshold_a: 1, processor_res: 512 }, []],
    [{ module: "Canny", threshold_a: 100, threshold_b: 200 }, ["canny"]],
  ])("the hint of a unit of %j is its image, or made by %j", async (fields, made) => {
    const unit = { model: "canny", image: "AAAA", ...fields };
    const { status, spec } = await ask({ alwayson_scripts: { ControlNet: { args: [unit] } } });
    expect([status, spec?.request.controlPreprocess ?? []]).toEqual([200, made]);
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

  test("a refiner has the aesthetic scores of the options", async () => {
    const scores = { sdxl_refiner_high_aesthetic_score: 7 };
    const shared = { refiner_checkpoint: "other", refiner_switch_at: 0.8 };
    const { spec } = await ask({ ...shared, override_settings: scores });
    expect(spec!.request.aestheticScore).toBe(7);
    expect(spec!.request).not.toHaveProperty("negativeAestheticScore");
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
    [{ module: "blur_gaussian" }, 'The preprocessor "blur_gaussian" (module) is not there.'],
    [{ module: "toString" }, 'The preprocessor "toString" (module) is not there.'],
    [
      { module: "tile_resample", threshold_a: 4 },
      "A rate of tile_resample but 1 (threshold_a) is not there.",
    ],
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
    [{ mask: true, inpainting_fill: 2 }, { maskContent: "latent-noise" }],
    [{ mask: true, inpainting_fill: 3 }, { maskContent: "latent-nothing" }],
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
    [{ mask: "AAAA", inpainting_fill: 4 }, 422, [{ loc: ["body", "inpainting_fill"] }]],
    [{ denoising_strength: 2 }, 422, [{ loc: ["body", "denoising_strength"] }]],
  ])("%j is refused by name", async (fields, status, detail) => {
    const found = await ask(fields);
    expect(found.status).toBe(status);
    expect(found.answer).toMatchObject({ detail });
  });
});
