/**
 * ComfyUI's uploads and nodes of images: names, pixels as torch and Pillow compute them, and what
 * samplers start from.
 */
import { afterAll, describe, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import sharp from "sharp";
import { grown } from "../../src/image/grow.ts";
import { type RawImage, readImage } from "../../src/image/read.ts";
import { resampled, type UpscaleMethod } from "../../src/serve/dialects/resample.ts";
import { defaultPrompt } from "../support/comfy-prompt.ts";
import { dialectApp } from "../support/dialect-app.ts";
import { colouredPng, holed, squareMask } from "../support/input-images.ts";

type Json = Record<string, unknown>;

const server = dialectApp();
afterAll(() => rmSync(server.folder, { recursive: true, force: true }));

/** The form of an upload. */
function formOf(bytes: Uint8Array, name: string, fields: Record<string, string> = {}): FormData {
  const form = new FormData();
  form.append("image", new Blob([bytes as Uint8Array<ArrayBuffer>]), name);
  for (const [field, value] of Object.entries(fields)) form.append(field, value);
  return form;
}

async function upload(form: FormData, kind = "image") {
  return await server.app.request(`/upload/${kind}`, { method: "POST", body: form });
}

const size = { width: 96, height: 64 };
const image = await colouredPng(size);
const mask = await squareMask(size);

describe("uploads", () => {
  test("have names that clients choose, once each", async () => {
    const other = await colouredPng({ width: 64, height: 64 });
    const name = async (bytes: Uint8Array, fields = {}) => {
      return (await (await upload(formOf(bytes, "a.png", fields))).json()) as Json;
    };
    const input = { subfolder: "", type: "input" };
    expect(await name(image)).toEqual({ name: "a.png", ...input });
    expect(await name(image)).toEqual({ name: "a.png", ...input });
    expect(await name(other)).toEqual({ name: "a (1).png", ...input });
    const sub = { ...input, name: "a.png", subfolder: "my/own" };
    expect(await name(other, { subfolder: "my/own" })).toEqual(sub);
    const view = async (query: string) => await (await server.get(`/view?${query}`)).bytes();
    expect(await view("filename=a.png&type=input")).toEqual(image);
    expect(await view("filename=a.png&type=input&subfolder=my/own")).toEqual(other);
    await name(other, { overwrite: "true" });
    expect(await view("filename=a.png&type=input")).toEqual(other);
    const info = (await (await server.get("/object_info/LoadImage")).json()) as Json;
    const names = [["a (1).png", "a.png", "my/own/a.png"], { image_upload: true }];
    expect(info).toMatchObject({ LoadImage: { input: { required: { image: names } } } });
  });

  test.each<[string, Uint8Array, string, Record<string, string>]>([
    ["no image", Buffer.from("<svg xmlns='http://www.w3.org/2000/svg'/>"), "a.svg", {}],
    ["a name above", image, "../a.png", {}],
    ["a folder above", image, "a.png", { subfolder: "../.." }],
    ["a folder of the machine", image, "a.png", { subfolder: "/etc" }],
    ["a folder that is not for it", image, "a.png", { type: "output" }],
    ["a name that is too long", image, `${"a".repeat(300)}.png`, {}],
  ])("%s is refused", async (_, bytes, name, fields) => {
    expect((await upload(formOf(bytes, name, fields))).status).toBe(400);
  });

  test("a mask becomes the alpha of the image that it is of", async () => {
    await upload(formOf(image, "of.png"));
    const original_ref = JSON.stringify({ filename: "of.png", type: "input" });
    const form = formOf(await holed(mask), "masked.png", { original_ref });
    expect(await (await upload(form, "mask")).json()).toMatchObject({ name: "masked.png" });
    const bytes = await (await server.get("/view?filename=masked.png&type=input")).bytes();
    const { data } = await sharp(bytes).raw().toBuffer({ resolveWithObject: true });
    const colours = await sharp(image).raw().toBuffer();
    const middle = 32 * 96 + 48;
    expect([...data.subarray(4 * middle, 4 * middle + 4)]).toEqual([
      ...colours.subarray(3 * middle, 3 * middle + 3),
      0,
    ]);
    expect(data[3]).toBe(255);
    const other = await squareMask({ width: 64, height: 64 });
    expect((await upload(formOf(other, "b.png", { original_ref }), "mask")).status).toBe(400);
  });
});

describe("pixels are those of torch and Pillow", () => {
  const pixels = Uint8Array.from({ length: 12 }, (_, at) => (at * 97) % 251);
  const small = { width: 4, height: 3, pixels };

  test.each<[UpscaleMethod, number[], number[]]>([
    ["nearest-exact", [23, 23, 120, 217, 217, 63, 63], [97, 40, 120, 63]],
    ["bilinear", [23, 58, 113, 169, 206, 118, 63], [83, 120, 100, 137]],
    ["area", [23, 72, 120, 168, 217, 140, 63], [117, 123, 128, 134]],
    ["bicubic", [2, 38, 98, 195, 226, 120, 34], [81, 122, 99, 141]],
    ["lanczos", [0, 22, 89, 210, 228, 111, 20], [111, 129, 127, 146]],
  ])("%s", async (method, lastRow, reduced) => {
    const larger = await resampled(small, { width: 7, height: 5 }, method);
    const smaller = await resampled(small, { width: 2, height: 2 }, method);
    expect(distance(larger.pixels.subarray(28), lastRow)).toBeLessThanOrEqual(1);
    expect(distance(smaller.pixels, reduced)).toBeLessThanOrEqual(1);
  });

  test("a mask grows by a square, of an even side downwards", () => {
    const point = { width: 6, height: 5, pixels: new Uint8Array(30) };
    point.pixels[2 * 6 + 3] = 200;
    const places = (count: number) => {
      const found = [...grown(point, count).pixels.entries()].filter(([, value]) => value > 0);
      return found.map(([at]) => at);
    };
    expect(places(1)).toEqual([15]);
    expect(places(2)).toEqual([15, 16, 21, 22]);
    expect(places(3)).toEqual([8, 9, 10, 14, 15, 16, 20, 21, 22]);
  });
});

/** The greatest difference of two rows of values. */
function distance(a: ArrayLike<number>, b: readonly number[]): number {
  expect(a.length).toBe(b.length);
  return Math.max(...b.map((value, at) => Math.abs(value - a[at]!)));
}

describe("a sampler from an image", () => {
  const node = (class_type: string, inputs: Json) => ({ class_type, inputs });
  const load = node("LoadImage", { image: "start.png" });
  const vae = ["4", 2];
  const encode = node("VAEEncode", { pixels: ["20", 0], vae });

  async function ask(sampler: Json, nodes: Record<string, unknown>, change: Json = {}) {
    await upload(formOf(image, "start.png"));
    await upload(formOf(await holed(mask), "hole.png"));
    const { 5: _, ...plain } = defaultPrompt({ 3: sampler });
    const before = server.jobs.submitted.length;
    const prompt = { ...plain, ...nodes, ...change };
    const response = await server.post("/prompt", { prompt });
    const answer = (await response.json()) as Json;
    return {
      ...{ status: response.status, answer, spec: server.jobs.submitted[before] },
      inputs: server.jobs.inputs.at(-1),
    };
  }

  const pixelsOf = async (bytes: Uint8Array, channels: 1 | 3): Promise<RawImage> =>
    await readImage(bytes, { name: "image", channels, background: "#000000" });

  test("its steps are the last of more", async () => {
    const sampler = { latent_image: ["21", 0], denoise: 0.6 };
    const { spec, inputs, answer } = await ask(sampler, { 20: load, 21: encode });
    expect(answer.error).toBeUndefined();
    expect(spec!.request).toMatchObject({ compat: "comfyui", strength: 0.6, stepCount: 4 });
    expect(spec!.request.width).toBeUndefined();
    expect(await pixelsOf(inputs!.image!, 3)).toEqual(await pixelsOf(image, 3));
    expect(inputs!.mask).toBeNull();
  });

  test("a sampler that begins later has the steps that are left", async () => {
    const { denoise: _, seed, ...rest } = defaultPrompt()[3]!.inputs as Record<string, unknown>;
    const more = { add_noise: "enable", start_at_step: 12, end_at_step: 10_000, steps: 30 };
    const inputs = { ...rest, ...more, noise_seed: seed, return_with_leftover_noise: "disable" };
    const advanced = node("KSamplerAdvanced", { ...inputs, latent_image: ["21", 0] });
    const { spec, answer } = await ask({}, { 20: load, 21: encode }, { 3: advanced });
    expect(answer.error).toBeUndefined();
    expect(spec!.request.stepCount).toBe(18);
    expect(Math.trunc(18 / spec!.request.strength!)).toBe(30);
  });

  test("a preview of the image itself is in no one's way", async () => {
    const preview = node("PreviewImage", { images: ["20", 0] });
    const nodes = { 20: load, 21: encode, 30: preview };
    const { status, answer, spec } = await ask({ latent_image: ["21", 0] }, nodes);
    expect(status).toBe(200);
    expect(Object.keys(answer.node_errors as Json)).toEqual(["30"]);
    expect(spec!.dialectData).toMatchObject({ outputs: ["9"] });
    const alone = await server.post("/prompt", { prompt: { 20: load, 30: preview } });
    expect(alone.status).toBe(400);
  });

  test("a mask of the latent, as often as it is repeated", async () => {
    const nodes = {
      ...{ 20: load, 21: encode, 22: node("LoadImage", { image: "hole.png" }) },
      23: node("SetLatentNoiseMask", { samples: ["21", 0], mask: ["22", 1] }),
      24: node("RepeatLatentBatch", { samples: ["23", 0], amount: 3 }),
    };
    const { spec, inputs, answer } = await ask({ latent_image: ["24", 0] }, nodes);
    expect(answer.error).toBeUndefined();
    expect(spec!.request).toMatchObject({ strength: 1, imageCount: 3 });
    expect(await pixelsOf(inputs!.mask!, 1)).toEqual(await pixelsOf(mask, 1));
  });

  test("an enlarged image is grey where it is new, which grows by a few pixels", async () => {
    const sides = { left: 32, top: 0, right: 0, bottom: 0 };
    const nodes = {
      20: load,
      21: node("ImagePadForOutpaint", { image: ["20", 0], ...sides, feathering: 0 }),
      22: node("VAEEncodeForInpaint", { pixels: ["21", 0], mask: ["21", 1], vae, grow_mask_by: 6 }),
    };
    const { spec, inputs, answer } = await ask({ latent_image: ["22", 0] }, nodes);
    expect(answer.error).toBeUndefined();
    expect(spec!.request).toMatchObject({ maskContent: "grey", maskGrow: 6 });
    const [padded, part] = [await pixelsOf(inputs!.image!, 3), await pixelsOf(inputs!.mask!, 1)];
    expect([padded.width, padded.height]).toEqual([128, 64]);
    expect([padded.pixels[0], padded.pixels[31 * 3]]).toEqual([128, 128]);
    const row = part.pixels.subarray(0, 128);
    expect(row.lastIndexOf(255)).toBe(31);
  });

  test("prompts of a model for inpainting keep their sides", async () => {
    const own = { positive: ["6", 0], negative: ["7", 0], pixels: ["20", 0], mask: ["22", 0], vae };
    const nodes = {
      20: load,
      22: node("LoadImageMask", { image: "hole.png", channel: "alpha" }),
      23: node("InpaintModelConditioning", { ...own, noise_mask: true }),
    };
    const sampler = { positive: ["23", 0], negative: ["23", 1], latent_image: ["23", 2] };
    const { spec, answer } = await ask(sampler, nodes);
    expect(answer.error).toBeUndefined();
    expect(spec!.request).toMatchObject({ prompt: "a (red:1.2) house", negativePrompt: "blurry" });
    const { answer: refusal } = await ask({ ...sampler, negative: ["7", 0] }, nodes);
    expect(refusal.error).toMatchObject({ type: "prompt_outputs_failed_validation" });
  });

  test("ControlNets steer both prompts", async () => {
    const both = { positive: ["6", 0], negative: ["7", 0], image: ["20", 0], strength: 0.5 };
    const nodes = {
      5: defaultPrompt()[5],
      20: load,
      30: node("ControlNetLoader", { control_net_name: "union.safetensors" }),
      31: node("SetUnionControlNetType", { control_net: ["30", 0], type: "depth" }),
      32: node("ControlNetApplyAdvanced", {
        ...{ ...both, control_net: ["31", 0], start_percent: 0.25, end_percent: 1 },
      }),
    };
    const sampler = { positive: ["32", 0], negative: ["32", 1] };
    const { spec, inputs, answer } = await ask(sampler, nodes);
    expect(answer.error).toBeUndefined();
    expect(spec!.request).toMatchObject({
      ...{ controlnet: ["union"], controlScale: [0.5], controlStart: [0.25], controlType: [1] },
      ...{ prompt: "a (red:1.2) house", negativePrompt: "blurry", width: 64 },
    });
    expect(inputs!.image).toBeNull();
    expect(await pixelsOf(inputs!.controlImages![0]!, 3)).toEqual(await pixelsOf(image, 3));
    const { status } = await ask({ ...sampler, negative: ["7", 0] }, nodes);
    expect(status).toBe(400);
  });

  test("an image in another size", async () => {
    const by = { image: ["20", 0], upscale_method: "bicubic", scale_by: 0.5 };
    const scaled = { ...encode, inputs: { pixels: ["22", 0], vae } };
    const nodes = { 20: load, 22: node("ImageScaleBy", by), 21: scaled };
    const { inputs } = await ask({ latent_image: ["21", 0] }, nodes);
    const { width, height } = await pixelsOf(inputs!.image!, 3);
    expect([width, height]).toEqual([48, 32]);
  });

  test.each<[string, Json, Record<string, unknown>, string]>([
    ["an image that is not there", {}, { 20: node("LoadImage", { image: "no.png" }) }, "20"],
    ["one above the folder", {}, { 20: node("LoadImage", { image: "../start.png" }) }, "20"],
    ["no noise at all", { denoise: 0 }, {}, "3"],
    ["an image of the prompt itself", {}, { 20: node("ImageInvert", { image: ["8", 0] }) }, "20"],
    [
      "one that would be huge",
      {},
      {
        20: node("ImageScaleBy", { image: ["19", 0], upscale_method: "area", scale_by: 8 }),
        19: node("ImageScaleBy", { image: ["18", 0], upscale_method: "area", scale_by: 8 }),
        18: load,
      },
      "20",
    ],
  ])("%s is refused at its node", async (_, sampler, nodes, id) => {
    const all = { 20: load, 21: encode, ...nodes };
    const { status, answer } = await ask({ latent_image: ["21", 0], ...sampler }, all);
    expect(status).toBe(400);
    expect(Object.keys(answer.node_errors as Json)).toContain(id);
  });
});
