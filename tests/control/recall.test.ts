/**
 * Images of other programs as settings of this one: what each writes, what cannot be repeated, and
 * texts that lie or break off.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { withPngTexts } from "../../src/image/png-texts.ts";
import { writeImage } from "../../src/image.ts";
import { recallImage } from "../../src/metadata.ts";
import type { SettingKey } from "../../src/settings/table.ts";
import { refusal } from "../support/refusal.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-recall-"));
const plain = join(folder, "plain.png");
const { BASEDXL_CACHE_DIR } = process.env;
beforeAll(async () => {
  process.env.BASEDXL_CACHE_DIR = join(folder, "cache");
  await writeImage(plain, new Uint8Array(3), 1, 1);
});
afterAll(() => {
  if (BASEDXL_CACHE_DIR === undefined) delete process.env.BASEDXL_CACHE_DIR;
  else process.env.BASEDXL_CACHE_DIR = BASEDXL_CACHE_DIR;
  rmSync(folder, { recursive: true });
});

/** What is recalled of a PNG with these texts. */
async function recalled(
  texts: Record<string, string>,
  explicit: readonly SettingKey[] = [],
  device?: string,
) {
  const path = join(folder, "image.png");
  writeFileSync(path, withPngTexts(readFileSync(plain), Object.entries(texts)));
  return await recallImage(path, { modelsDir: [], explicit: new Set(explicit), device });
}

/** ComfyUI's default workflow, as its API and its images have it. */
function defaultGraph(): Record<string, { class_type: string; inputs: Record<string, unknown> }> {
  return {
    "3": {
      class_type: "KSampler",
      inputs: {
        ...{ seed: 156680208700286, steps: 20, cfg: 8, sampler_name: "euler_ancestral" },
        ...{ scheduler: "karras", denoise: 1, model: ["10", 0] },
        ...{ positive: ["6", 0], negative: ["7", 0], latent_image: ["5", 0] },
      },
    },
    "4": { class_type: "CheckpointLoaderSimple", inputs: { ckpt_name: "sub\\none.safetensors" } },
    "5": { class_type: "EmptyLatentImage", inputs: { width: 1216, height: 832, batch_size: 1 } },
    "6": { class_type: "CLIPTextEncode", inputs: { text: "a glass bottle", clip: ["10", 1] } },
    "7": { class_type: "CLIPTextEncode", inputs: { text: "", clip: ["10", 1] } },
    "8": { class_type: "VAEDecode", inputs: { samples: ["3", 0], vae: ["4", 2] } },
    "9": { class_type: "SaveImage", inputs: { filename_prefix: "ComfyUI", images: ["8", 0] } },
    "10": {
      class_type: "LoraLoader",
      inputs: {
        ...{ lora_name: "gone.safetensors", strength_model: 0.8, strength_clip: 0.5 },
        ...{ model: ["4", 0], clip: ["4", 1] },
      },
    },
  };
}

describe("A1111", () => {
  test("its fields, and what is not repeated", async () => {
    const { tool, settings, warnings } = await recalled({
      parameters: `a castle, <lora:gone:0.7>detailed
Negative prompt: people
Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5.5, Seed: 4294967295, Size: \
1000x832, Model hash: 31e35c80fc, Model: none, Denoising strength: 0.4, Hires upscale: 2, Hires \
upscaler: Latent, ControlNet 0: "Module: canny, Weight: 1", Foo: 1, Version: v1.10.1`,
    });
    expect(tool).toBe("A1111");
    expect(settings).toEqual({
      prompt: "a castle, detailed",
      negativePrompt: "people",
      stepCount: 30,
      guidanceScale: 5.5,
      seed: 4294967295n,
      width: 992,
      height: 832,
      scheduler: "dpmpp_2m",
      sigmas: "karras",
      compat: "a1111",
      rng: "cuda",
      ...{ hires: 2, hiresStrength: 0.4, hiresUpscaler: "latent" },
    });
    expect(warnings).toEqual([
      "The width 1000 is not possible: 992 is used.",
      "ControlNet of the image is not repeated.",
      "These fields of the image are not read: Foo.",
      "The model none (31e35c80fc) is not in the folders of models: another one is used.",
      "The LoRA gone is not in the folders of models: it is left out.",
    ]);
  });

  test("samplers and schedules by older names, and unknown ones", async () => {
    const of = async (sampler: string, more = "") => {
      const line = `Steps: 9, Sampler: ${sampler}, ${more}CFG scale: 7, Seed: 1, RNG: CPU`;
      const { settings, warnings } = await recalled({ parameters: `x\n${line}` });
      const { scheduler, sigmas, rng } = settings;
      expect(rng).toBe("cpu");
      return [scheduler, sigmas, warnings.length];
    };
    expect(await of("DPM++ 2M SDE Karras")).toEqual(["dpmpp_2m_sde", "karras", 0]);
    // No schedule is that of versions before 1.9; "Automatic" depends on the sampler.
    expect(await of("DPM++ 2M")).toEqual(["dpmpp_2m", "normal", 0]);
    expect(await of("DPM++ 2M", "Schedule type: Automatic, ")).toEqual(["dpmpp_2m", undefined, 0]);
    expect(await of("DPM++ 2M", "Schedule type: Uniform, ")).toEqual(["dpmpp_2m", "normal", 0]);
    expect(await of("Euler a")).toEqual(["euler_a", "normal", 0]);
    const uniform = "Schedule type: SGM Uniform, ";
    expect(await of("Euler", uniform)).toEqual(["euler", "sgm_uniform", 0]);
    for (const name of ["DDIM", "PLMS", "UniPC"]) {
      const [scheduler] = await of(name);
      expect(await of(name)).toEqual([scheduler, undefined, 0]);
      expect(await of(name, "Schedule type: Automatic, ")).toEqual([scheduler, undefined, 0]);
      expect(await of(name, uniform)).toEqual([scheduler, undefined, 1]);
    }
    const beta = "Schedule type: Beta, ";
    expect(await of("Euler", beta)).toEqual(["euler", "beta", 0]);
    expect(await of("Restart")).toEqual([undefined, "normal", 1]);
    expect(await of("Euler", "Schedule type: Foo, ")).toEqual(["euler", undefined, 1]);
  });

  test("the variation of its seed, and ENSD", async () => {
    const fields = "Variation seed: 3, Variation seed strength: 0.1, ENSD: 31337";
    const { settings, warnings } = await recalled({
      parameters: `x\nSteps: 9, Seed: 1, ${fields}`,
    });
    const noise = { variationSeed: 3n, variationStrength: 0.1, etaNoiseSeedDelta: 31337 };
    expect(settings).toMatchObject(noise);
    expect(warnings).toEqual([]);
  });

  test("its samplers' options", async () => {
    const of = async (sampler: string, more: string) => {
      const line = `Steps: 9, Sampler: ${sampler}, CFG scale: 7, Seed: 1, ${more}`;
      const { settings, warnings } = await recalled({ parameters: `x\n${line}` });
      const { eta, sNoise, firstSigma, rescaleBetasZeroSnr } = settings;
      return [eta, sNoise, firstSigma, rescaleBetasZeroSnr, ...warnings];
    };
    const ancestral = "Eta: 0.5, Sigma noise: 1.003, SGM noise multiplier: True";
    expect(await of("Euler a", ancestral)).toEqual([0.5, 1.003, "sqrt", undefined]);
    const others = "Eta DDIM: 0.7, SGM noise multiplier: True, Clip skip: 2";
    expect(await of("DDIM", others)).toEqual([0.7, undefined, undefined, undefined]);
    const zero = "Noise Schedule: Zero Terminal SNR";
    expect(await of("Euler", zero)).toEqual([undefined, undefined, undefined, true]);
    expect(await of("Euler", "NGMS: 2, Seed resize from: 512x512")).toEqual([
      ...[undefined, undefined, undefined, undefined],
      "The resized seed of the image is not repeated.",
      "These fields of the image are not read: NGMS.",
    ]);
  });

  test("values out of range are left out, with a sentence each", async () => {
    const { settings, warnings } = await recalled({
      parameters: `x
Steps: 5000, Sampler: Euler, CFG scale: -3, Seed: 99999999999999999999, Size: 99999x8`,
    });
    expect(settings).toEqual({
      ...{ prompt: "x", scheduler: "euler", sigmas: "normal", rng: "cuda" },
      ...{ width: 8192, height: 32, compat: "a1111" },
    });
    expect(warnings).toHaveLength(5);
    expect(warnings[0]).toBe(
      `A1111's Steps must be a whole number from 1 to 1000, not "5000"; left out.`,
    );
  });

  test("how brackets in prompts are read", async () => {
    const of = async (prompt: string, more = "") => {
      const line = `Steps: 9, Sampler: Euler, CFG scale: 7, Seed: 1${more}`;
      const { settings, warnings } = await recalled({ parameters: `${prompt}\n${line}` });
      expect(settings.compat).toBe(more.includes("BasedXL") ? undefined : "a1111");
      return [settings.promptSyntax, settings.emphasis, warnings.length];
    };
    expect(await of("(a:1.2)")).toEqual([undefined, undefined, 0]);
    expect(await of("(a:1.2)", ", Emphasis: No norm")).toEqual([undefined, "no_norm", 0]);
    expect(await of("(a:1.2)", ", Emphasis: Ignore")).toEqual([undefined, "ignore", 0]);
    expect(await of("(a:1.2)", ", Emphasis: None")).toEqual([undefined, "none", 0]);
    expect(await of("(a:1.2)", ", Emphasis: Loud")).toEqual([undefined, undefined, 1]);
    expect(await of("a cat AND a dog")).toEqual([undefined, undefined, 0]);
    // Of this program, without its JSON: the text says what A1111 must do for the same.
    const own = ", Version: BasedXL 0.1.0";
    expect(await of("(a:1.2)", own)).toEqual(["a1111", undefined, 0]);
    expect(await of("(a:1.2)", `, Emphasis: None${own}`)).toEqual([undefined, undefined, 0]);
  });

  test("a prompt alone", async () => {
    const { settings, warnings } = await recalled({ parameters: "just a prompt" });
    expect(settings).toEqual({ prompt: "just a prompt" });
    expect(warnings).toEqual(["The image has a prompt and no other parameters."]);
  });
});

describe("ComfyUI", () => {
  test("the default workflow with a LoRA", async () => {
    const { tool, settings, warnings } = await recalled({ prompt: JSON.stringify(defaultGraph()) });
    expect(tool).toBe("ComfyUI");
    expect(settings).toEqual({
      prompt: "a glass bottle",
      negativePrompt: "",
      seed: 156680208700286n,
      stepCount: 20,
      guidanceScale: 8,
      scheduler: "euler_a",
      sigmas: "karras",
      width: 1216,
      height: 832,
      compat: "comfyui",
    });
    expect(warnings).toEqual([
      "The model sub\\none.safetensors is not in the folders of models: another one is used.",
      "The LoRA gone.safetensors is not in the folders of models: it is left out.",
    ]);
  });

  test("seeds of 64 bits stay whole, and Python's NaN is none of our business", async () => {
    const text = JSON.stringify(defaultGraph())
      .replace("156680208700286", "9223372036854775806")
      .replace('"batch_size":1', '"batch_size":1,"is_changed":[NaN]');
    const { settings } = await recalled({ prompt: text });
    expect(settings.seed).toBe(9223372036854775806n);
    const beyond = await recalled({ prompt: text.replace("9223372036854775806", "1".repeat(20)) });
    expect(beyond.settings.seed).toBeUndefined();
    expect(beyond.warnings[0]).toMatch(/^ComfyUI's seed must be a whole number from 0/);
  });

  test("an image of a batch", async () => {
    const graph = defaultGraph();
    graph["5"]!.inputs.batch_size = 4;
    const { settings, warnings } = await recalled({ prompt: JSON.stringify(graph) });
    expect(settings.noiseBatch).toBe(4);
    expect(warnings[0]).toBe(
      "The image is one of a batch of 4: the first is repeated, and --noise-index 1 to 3 are the " +
        "others.",
    );
  });

  test("two prompts, and the layer of the text encoders", async () => {
    const graph = defaultGraph();
    const clip = ["40", 0];
    graph["40"] = {
      class_type: "CLIPSetLastLayer",
      inputs: { stop_at_clip_layer: -3, clip: ["10", 1] },
    };
    graph["6"] = { class_type: "CLIPTextEncodeSDXL", inputs: { text_l: "l", text_g: "g", clip } };
    const { settings } = await recalled({ prompt: JSON.stringify(graph) });
    expect(settings).toMatchObject({ prompt: "l", prompt2: "g", clipSkip: 3 });
    expect(settings.negativePrompt2).toBeUndefined();
  });

  test("values in other nodes, a second sampler, ControlNet, circles", async () => {
    const graph = defaultGraph();
    const sampler = graph["3"]!.inputs;
    Object.assign(sampler, { seed: ["20", 0], positive: ["21", 0], denoise: 0.5 });
    graph["20"] = { class_type: "Seed (rgthree)", inputs: { seed: 5 } };
    graph["21"] = { class_type: "ControlNetApply", inputs: { conditioning: ["6", 0] } };
    graph["6"]!.inputs.text = ["22", 0];
    graph["22"] = { class_type: "String", inputs: { string: "from a node" } };
    graph["4"]!.inputs.model = ["10", 0];
    graph["30"] = { class_type: "KSampler", inputs: { latent_image: ["3", 0] } };
    const { settings, warnings } = await recalled({ prompt: JSON.stringify(graph) });
    expect(settings).toMatchObject({ prompt: "from a node", seed: 5n });
    expect(warnings.slice(0, 3)).toEqual([
      "The graph has 2 samplers: only the first is repeated.",
      "The start from another image is not repeated.",
      "The node ControlNetApply is not repeated.",
    ]);
  });

  test("values that cannot be followed, and a sampler that ends early, are said", async () => {
    const graph = defaultGraph();
    graph["6"]!.inputs.text = ["22", 0];
    graph["22"] = { class_type: "StringConcatenate", inputs: { string_a: "a", string_b: "b" } };
    const more = { sampler_name: ["99", 0], add_noise: "disable", end_at_step: 12 };
    Object.assign(graph["3"]!.inputs, more);
    graph["3"]!.class_type = "KSamplerAdvanced";
    const { settings, warnings } = await recalled({ prompt: JSON.stringify(graph) });
    expect(settings).toMatchObject({ scheduler: "euler", stepCount: 20 });
    expect(warnings.slice(0, 4)).toEqual([
      "What comes from the node that is missing is not read.",
      "The start from another image is not repeated.",
      "The end after 12 steps is not repeated: all are done.",
      "What comes from the node StringConcatenate is not read.",
    ]);
  });

  test("samplers that take a GPU's noise", async () => {
    const graph = defaultGraph();
    Object.assign(graph["3"]!.inputs, { sampler_name: "dpmpp_2m_sde_gpu" });
    const { settings } = await recalled({ prompt: JSON.stringify(graph) });
    expect(settings).toMatchObject({ scheduler: "dpmpp_2m_sde", noiseSampler: "brownian_gpu" });
  });
});

test("SwarmUI", async () => {
  const { tool, settings, warnings } = await recalled({
    parameters: JSON.stringify({
      sui_image_params: {
        ...{ prompt: "a tree", negativeprompt: "bad", model: "sub/none", images: 1, seed: 7 },
        ...{ steps: 20, cfgscale: 6.5, width: 1024, height: 1024, sampler: "dpmpp_2m" },
        ...{ scheduler: "karras", loras: ["gone"], loraweights: ["0.6"], refinermodel: "x" },
      },
      sui_models: [{ name: "sub/none", param: "model", hash: `0x${"ab".repeat(32)}` }],
    }),
  });
  expect(tool).toBe("SwarmUI");
  expect(settings).toEqual({
    ...{ prompt: "a tree", negativePrompt: "bad", seed: 7n, stepCount: 20, guidanceScale: 6.5 },
    ...{ width: 1024, height: 1024, scheduler: "dpmpp_2m", sigmas: "karras", compat: "comfyui" },
  });
  expect(warnings).toEqual([
    "The refiner of the image is not repeated.",
    "The model sub/none (ababababab) is not in the folders of models: another one is used.",
    "The LoRA gone is not in the folders of models: it is left out.",
  ]);
});

test("Fooocus", async () => {
  const { tool, settings, warnings } = await recalled({
    fooocus_scheme: "fooocus",
    parameters: JSON.stringify({
      ...{ adm_guidance: "(1.5, 0.8, 0.3)", base_model: "juggernautXL_v8Rundiffusion" },
      ...{ base_model_hash: "aeb7e9e689", full_negative_prompt: ["ugly", "blurry"] },
      ...{ full_prompt: ["cinematic still a fox", "emotional"], guidance_scale: 4 },
      ...{ loras: [["gone", 0.1, "4852686128"]], negative_prompt: "", performance: "Speed" },
      ...{ prompt: "a fox", refiner_model: "None", resolution: "(1152, 896)", sampler: "dpmpp_2m" },
      ...{ scheduler: "karras", seed: "4566036434343455", sharpness: 2, steps: 30 },
      ...{ vae: "Default (model)", version: "Fooocus v2.5.5" },
    }),
  });
  expect(tool).toBe("Fooocus");
  expect(settings).toEqual({
    ...{ prompt: "cinematic still a fox, emotional", negativePrompt: "ugly, blurry" },
    ...{ seed: 4566036434343455n, stepCount: 30, guidanceScale: 4, width: 1152, height: 896 },
    ...{ scheduler: "dpmpp_2m", sigmas: "karras", compat: "comfyui" },
  });
  expect(warnings.map((warning) => warning.split(" ").slice(0, 2).join(" "))).toEqual([
    "Fooocus' sharpness",
    "The model",
    "The LoRA",
  ]);
});

describe("texts that nobody should trust", () => {
  const own = {
    ...{ basedxl: "0.0.1", format: 1, model: { name: "x" }, loras: [], embeddings: [] },
    ...{ hardware: "abacus", settings: { prompt: "a", width: "wide", mystery: 1, gpus: 99 } },
  };

  test("settings that say where files are do not come from an image", async () => {
    const settings = {
      ...{ prompt: "x", models_dir: ["/"], model: "/m", vae: "/v", wildcards: "/w", styles: "/s" },
      ...{ prompt_file: "/p", out_path: "/o", save_latents: "/l", from_image: "/i" },
    };
    const found = await recalled({ basedxl: JSON.stringify({ ...own, settings }) });
    expect(found.settings).toEqual({ prompt: "x" });
  });

  test("another --compat leaves nothing of the image's", async () => {
    const settings = { prompt: "a", compat: "comfyui", prompt_syntax: "comfyui", rng: "cpu" };
    const place = { noise_order: "batch", noise_batch: 4, noise_index: 2 };
    const batch = { basedxl: JSON.stringify({ ...own, settings: { ...settings, ...place } }) };
    expect((await recalled(batch, ["compat"])).settings).toEqual({ prompt: "a" });
    const texts = { basedxl: JSON.stringify({ ...own, settings }) };
    expect((await recalled(texts)).settings).toEqual({
      ...{ prompt: "a", compat: "comfyui", promptSyntax: "comfyui", rng: "cpu" },
    });
    expect((await recalled(texts, ["compat"])).settings).toEqual({ prompt: "a" });
  });

  test("our own JSON, damaged, of another version, with unknown settings", async () => {
    const { settings, warnings } = await recalled({ basedxl: JSON.stringify(own) });
    expect(settings).toEqual({ prompt: "a" });
    expect(warnings.join("\n")).toMatch(/0\.0\.1 wrote.*width must.*gpus must.*mystery/s);
    const refuse = (value: unknown) =>
      refusal(() => recalled({ basedxl: JSON.stringify(value) }), "bad-option");
    expect(await refuse({ ...own, format: 2 })).toMatch(/written by BasedXL 0\.0\.1/);
    expect(await refuse({ ...own, model: 1 })).toMatch(/parameters of BasedXL that are damaged/);
  });

  test("the image's own device keeps the compute type, another one does not", async () => {
    const settings = { prompt: "a", device: "cpu", dtype: "bf16" };
    const text = { basedxl: JSON.stringify({ ...own, settings }) };
    expect((await recalled(text, ["device"], "cpu")).settings).toEqual({
      prompt: "a",
      dtype: "bf16",
    });
    expect((await recalled(text, ["device"], "cuda-emulated")).settings).toEqual({ prompt: "a" });
  });

  test("names that are paths lead nowhere outside of the folders of models", async () => {
    const line = "Steps: 1, Sampler: Euler, Seed: 1, Model: ";
    for (const name of ["/etc/passwd", "../../etc/passwd", "~/x", "C:\\x"]) {
      const parameters = `x <lora:${name}:1>\n${line}${name}`;
      const { settings, warnings } = await recalled({ parameters });
      expect(settings.model).toBeUndefined();
      expect(settings.prompt).toBe("x ");
      expect(warnings).toHaveLength(2);
    }
  });

  test.each([
    ["deep", `{"a":${"[".repeat(1e6)}${"]".repeat(1e6)}}`],
    ["cut off", '{"3":{"class_type":"KSampler","inputs":{'],
    ["huge", `{"a":"${"x".repeat(5e6)}"}`],
    ["endless", `{"a":"${'\\"'.repeat(5e5)}`],
    ["spacious", `{"a":${" ".repeat(1e6)}`],
    ["no object", "[1,2,3]"],
    ["empty", ""],
    ["of nothing", "{}"],
  ])("%s JSON is one sentence", async (_, text) => {
    for (const keyword of ["prompt", "parameters", "basedxl"]) {
      const message = await refusal(() => recalled({ [keyword]: text }), "bad-option");
      expect(message).toMatch(/^\S+ (has no parameters of BasedXL, A1111|was written by BasedXL)/);
      expect(message.length).toBeLessThan(300);
    }
  });

  test("long names and lists of hashes cost no time", async () => {
    const long = " ".repeat(1e5);
    const parameters = `x
Steps: 1, Sampler: Euler, Seed: 1, Model: ${"m".repeat(1e5)}, Lora hashes: "a${long}:${long}b"`;
    const { warnings } = await recalled({ parameters });
    expect(warnings).toHaveLength(1);
    expect(warnings[0]!.length).toBeLessThan(300);
  });

  test("control characters do not reach messages", async () => {
    const parameters = "x <lora:\x1b[2J:1>\nSteps: 1, Sampler: \x1b[31m, Seed: 1, \x1bA b: 3";
    const { warnings } = await recalled({ parameters });
    expect(warnings.length).toBeGreaterThan(1);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what must not be there
    expect(warnings.join(" ")).not.toMatch(/[\x00-\x1f]/);
  });
});
