/**
 * The fields of answers as the source of ComfyUI declares them, and what prompts become.
 */
import { describe, expect, test } from "bun:test";
import { defaultPrompt, refinedPrompt } from "../support/comfy-prompt.ts";
import { dialectApp, keysOf, sent, words } from "../support/dialect-app.ts";

type Json = Record<string, unknown>;

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
    const scored = { text: "a red circle", clip: ["12", 1], ascore: 7, ...size };
    nodes[15] = { class_type: "CLIPTextEncodeSDXLRefiner", inputs: scored };
    const { status, answer, spec } = await sent("/prompt", { prompt: nodes });
    expect([status, answer.error]).toEqual([200, undefined]);
    const prompts = { prompt: "a red circle", prompt2: "round", aestheticScore: 7 };
    expect(spec!.request).toMatchObject(prompts);
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
