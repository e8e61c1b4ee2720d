/**
 * Clients that were written for other programs, unchanged, against a server that generates: they
 * get images, see them come and stop them. The images are those of the command, byte for byte.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { Client } from "@stable-canvas/comfyui-client";
// @ts-expect-error: its package.json hides its types
import sdwebui from "node-sd-webui";
import OpenAI, { toFile } from "openai";
import { defaultPrompt } from "../support/comfy-prompt.ts";
import { sampledPng, startDialectServer } from "../support/dialect-server.ts";
import { colouredPng, holed, squareMask, written } from "../support/input-images.ts";

// The cores may be busy.
setDefaultTimeout(120_000);

let server: Awaited<ReturnType<typeof startDialectServer>>;
beforeAll(async () => {
  server = await startDialectServer();
});
afterAll(async () => await server[Symbol.asyncDispose]());

const decoded = (text = "") => new Uint8Array(Buffer.from(text, "base64"));
const isRunning = async () => (await jobsIn("running")).length > 0;

interface Job {
  id: string;
  state: string;
  spec: { dialect: string };
}

async function jobsIn(state: string): Promise<Job[]> {
  const response = await fetch(`${server.url}/api/v1/jobs?state=${state}`);
  const { jobs } = (await response.json()) as { jobs: Job[] };
  return jobs;
}

async function until(isTrue: () => Promise<boolean>): Promise<void> {
  while (!(await isTrue())) await Bun.sleep(5);
}

describe("the client of OpenAI", () => {
  const client = () => new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 });
  const fields = { prompt: "a red house", size: "64x64", steps: 3, seed: 7, guidance_scale: 4 };

  test("gets the image of the command", async () => {
    const { data: models } = await client().models.list();
    expect(models.map(({ id }) => id)).toEqual(["mini-sdxl"]);
    const images = await client().images.generate({
      ...fields,
      negative_prompt: "blurry",
    } as never);
    expect(images).toMatchObject({ size: "64x64", output_format: "png", background: "opaque" });
    const flags = ["--width", "64", "--height", "64", "--steps", "3", "--seed", "7"];
    const others = ["--guidance-scale", "4", "--negative-prompt", "blurry"];
    const png = await sampledPng(["a red house", ...flags, ...others]);
    expect(png).toEqual(decoded(images.data![0]!.b64_json));
  });

  test.each([false, true])("edits the image of the command, with a mask: %p", async (isPart) => {
    const size = { width: 96, height: 64 };
    await using image = await written(await colouredPng(size));
    await using mask = await written(await squareMask(size));
    const file = async (bytes: Uint8Array) => await toFile(bytes, "a.png", { type: "image/png" });
    const images = await client().images.edit({
      ...{ ...fields, size: "auto" },
      image: await file(image.bytes),
      ...(isPart && { mask: await file(await holed(mask.bytes)) }),
    } as never);
    expect(images).toMatchObject({ size: "96x64", output_format: "png" });
    const flags = ["--steps", "3", "--seed", "7", "--guidance-scale", "4", "--image", image.path];
    const masked = isPart ? ["--mask", mask.path] : [];
    const png = await sampledPng(["a red house", ...flags, ...masked]);
    expect(png).toEqual(decoded(images.data![0]!.b64_json));
  });

  test("sees an edit come", async () => {
    const image = await toFile(await colouredPng({ width: 64, height: 64 }), "a.png");
    const asked = { prompt: "a red house", image, stream: true, partial_images: 1, steps: 30 };
    const types: string[] = [];
    const stream = await client().images.edit(asked as never);
    for await (const event of stream as unknown as AsyncIterable<{ type: string }>) {
      types.push(event.type);
    }
    expect(types.at(-1)).toBe("image_edit.completed");
    expect(new Set(types)).toEqual(new Set(["image_edit.partial_image", "image_edit.completed"]));
  });

  test("sees it come", async () => {
    const stream = await client().images.generate({
      ...{ ...fields, steps: 30, output_format: "webp" as const },
      ...{ stream: true as const, partial_images: 2 },
    } as never);
    const types: string[] = [];
    for await (const event of stream as unknown as AsyncIterable<Record<string, string>>) {
      types.push(event.type!);
      expect(event).toMatchObject({ size: "64x64", output_format: "webp" });
      expect(Buffer.from(decoded(event.b64_json)).toString("latin1", 8, 12)).toBe("WEBP");
    }
    // Of steps that take no time, not each is seen.
    expect(types.length).toBeOneOf([2, 3]);
    expect(types.at(-1)).toBe("image_generation.completed");
    expect(new Set(types.slice(0, -1))).toEqual(new Set(["image_generation.partial_image"]));
  });

  test.each([false, true])("stops it, streaming: %p", async (stream) => {
    const stop = new AbortController();
    const asked = { ...fields, steps: 1000, stream };
    const ended = client()
      .images.generate(asked as never, { signal: stop.signal })
      .then(async (answer) => {
        if (stream) for await (const _ of answer as unknown as AsyncIterable<unknown>);
      });
    await until(isRunning);
    stop.abort();
    await ended.catch(() => {});
    await until(async () => !(await isRunning()));
    expect((await jobsIn("cancelled"))[0]!.spec.dialect).toBe("openai");
  });

  test("is told what is wrong", async () => {
    const refusal = async (wrong: object) =>
      await client()
        .images.generate({ ...fields, ...wrong } as never)
        .catch((error: unknown) => error);
    const [field, model] = [await refusal({ sigma: 1 }), await refusal({ model: "dall-e-2" })];
    expect(field).toMatchObject({ status: 400, code: "unknown_parameter", param: "sigma" });
    expect(model).toMatchObject({ status: 404, code: "model_not_found", param: "model" });
  });
});

describe("a client of A1111", () => {
  const fields = {
    ...{ prompt: "a (red:1.2) house", negativePrompt: "[blurry]", steps: 4, seed: 7 },
    ...{ width: 64, height: 64, samplingMethod: "Euler a", cfgScale: 5 },
  };
  const client = () => sdwebui({ apiUrl: server.url });

  test("gets the image of the command", async () => {
    const { images, info } = await client().txt2img(fields);
    const png = await sampledPng([
      ...["a (red:1.2) house", "--negative-prompt", "[blurry]", "--compat", "a1111"],
      ...["--width", "64", "--height", "64", "--steps", "4", "--seed", "7"],
      ...["--scheduler", "Euler a", "--guidance-scale", "5"],
    ]);
    expect(png).toEqual(decoded(images[0]));
    const said = JSON.parse(info as unknown as string);
    expect(said).toMatchObject({ all_seeds: [7], sampler_name: "Euler a", width: 64 });
    const { prompt } = await client().pngInfo({ imageData: images[0]! });
    expect(prompt).toBe("a (red:1.2) house");
  });

  test("gets the larger image of a second pass", async () => {
    const body = {
      ...{ prompt: "a house", steps: 3, seed: 7, sampler_name: "Euler", width: 64, height: 64 },
      ...{ enable_hr: true, hr_scale: 1.5, hr_upscaler: "Latent", denoising_strength: 0.6 },
    };
    const response = await fetch(`${server.url}/sdapi/v1/txt2img`, {
      method: "POST",
      body: JSON.stringify(body),
    });
    const { images } = (await response.json()) as { images: string[] };
    const flags = ["--compat", "a1111", "--width", "64", "--height", "64", "--steps", "3"];
    const same = ["--seed", "7", "--scheduler", "Euler", "--guidance-scale", "7"];
    const larger = ["--hires", "1.5", "--hires-strength", "0.6", "--hires-upscaler", "latent"];
    const png = await sampledPng(["a house", ...flags, ...same, ...larger]);
    expect(png).toEqual(decoded(images[0]));
  });

  test("gets the image of the command from an image", async () => {
    const size = { width: 96, height: 64 };
    await using image = await written(await colouredPng(size));
    const encoded = Buffer.from(image.bytes).toString("base64");
    const { images, info } = await client().img2img({ ...fields, imageData: [encoded] });
    const flags = ["--compat", "a1111", "--width", "64", "--height", "64", "--steps", "4"];
    const same = ["--seed", "7", "--scheduler", "Euler a", "--guidance-scale", "5"];
    const prompts = ["a (red:1.2) house", "--negative-prompt", "[blurry]"];
    const from = ["--image", image.path, "--strength", "0.75", "--resize", "stretch"];
    const png = await sampledPng([...prompts, ...flags, ...same, ...from]);
    expect(png).toEqual(decoded(images[0]));
    expect(JSON.parse(info)).toMatchObject({ denoising_strength: 0.75 });
    const gallery = `${server.url}/api/v1/images`;
    const newest = (await (await fetch(`${gallery}?limit=1`)).json()) as {
      images: { name: string }[];
    };
    const said = await fetch(`${gallery}/${newest.images[0]!.name}/metadata`);
    expect(await said.json()).toMatchObject({
      request: { strength: 0.75 },
      rows: [{ ranks: [0], first: 0, count: 64 }],
      unguidedRows: null,
    });
  });

  test.each<[boolean, number]>([
    [true, 0],
    [false, 1],
    [false, 2],
    [true, 3],
  ])("gets it from an image and a mask, of its area: %p, filled by %d", async (isPart, fill) => {
    const size = { width: 96, height: 64 };
    await using image = await written(await colouredPng(size));
    await using mask = await written(await squareMask(size));
    const body = {
      ...{ prompt: "a house", steps: 3, seed: 7, sampler_name: "Euler", width: 64, height: 64 },
      init_images: [`data:image/png;base64,${Buffer.from(image.bytes).toString("base64")}`],
      mask: Buffer.from(mask.bytes).toString("base64"),
      ...{ denoising_strength: 0.9, resize_mode: 1, mask_blur: 2, inpainting_fill: fill },
      ...{ inpaint_full_res: isPart, inpaint_full_res_padding: 8, inpainting_mask_invert: 0 },
    };
    const response = await fetch(`${server.url}/sdapi/v1/img2img`, {
      method: "POST",
      body: JSON.stringify(body),
    });
    const { images } = (await response.json()) as { images: string[] };
    const flags = ["--compat", "a1111", "--width", "64", "--height", "64", "--steps", "3"];
    const same = ["--seed", "7", "--scheduler", "Euler", "--guidance-scale", "7"];
    const from = ["--image", image.path, "--mask", mask.path, "--strength", "0.9"];
    const area = isPart ? ["--mask-area", "masked", "--mask-padding", "8"] : [];
    const contents = ["fill", "original", "latent-noise", "latent-nothing"];
    const png = await sampledPng([
      "a house",
      ...flags,
      ...same,
      ...from,
      ...["--mask-blur", "2", "--mask-content", contents[fill]!],
      ...area,
    ]);
    expect(png).toEqual(decoded(images[0]));
  });

  test("sees it come and stops it", async () => {
    const whole = client().txt2img({ ...fields, steps: 1000 });
    const progress = async () => {
      const response = await fetch(`${server.url}/sdapi/v1/progress`);
      return (await response.json()) as { progress: number; current_image: string | null };
    };
    await until(async () => (await progress()).current_image !== null);
    expect((await progress()).progress).toBeGreaterThan(0);
    await fetch(`${server.url}/sdapi/v1/interrupt`, { method: "POST" });
    expect((await whole).images).toEqual([]);
    expect(await progress()).toMatchObject({ progress: 0, current_image: null });
  });
});

describe("a client of ComfyUI", () => {
  const connected = () => {
    const client = new Client({
      api_host: server.url.replace("http://", ""),
      clientId: crypto.randomUUID(),
    } as never);
    client.connect();
    return client;
  };

  test("gets the image of the command and sees it come", async () => {
    const client = connected();
    const types: string[] = [];
    let previews = 0;
    client.on("message", ({ data }) => {
      if (typeof data === "string") types.push(JSON.parse(data).type);
      else previews++;
    });
    await new Promise<void>((resolve) => client.on("status", () => resolve()));
    const prompt = defaultPrompt({ 4: { ckpt_name: "mini-sdxl.safetensors" }, 3: { steps: 30 } });
    const { images } = await client.enqueue(prompt as never);
    const image = (images as { type: string; data: string }[]).find(({ type }) => type === "url");
    const bytes = await (await fetch(image!.data)).bytes();
    const png = await sampledPng([
      ...["a (red:1.2) house", "--negative-prompt", "blurry", "--compat", "comfyui"],
      ...["--width", "64", "--height", "64", "--steps", "30", "--seed", "42"],
      ...["--scheduler", "euler", "--sigmas", "normal", "--guidance-scale", "8"],
    ]);
    expect(png).toEqual(bytes);
    expect(previews).toBeGreaterThan(0);
    await until(async () => types.at(-1) === "executing");
    for (const type of ["execution_start", "progress", "progress_state", "execution_success"]) {
      expect(types).toContain(type);
    }
    client.close();
  });

  test("gets the image of the command from an image and a mask that it uploads", async () => {
    const client = connected();
    await new Promise<void>((resolve) => client.on("status", () => resolve()));
    const size = { width: 96, height: 64 };
    await using image = await written(await colouredPng(size));
    await using mask = await written(await squareMask(size));
    for (const [name, bytes] of [
      ["start.png", image.bytes],
      ["mask.png", mask.bytes],
    ] as const) {
      const form = new FormData();
      form.append("image", new Blob([bytes as Uint8Array<ArrayBuffer>]), name);
      const { status } = await fetch(`${server.url}/upload/image`, { method: "POST", body: form });
      expect(status).toBe(200);
    }
    const { 5: _, ...plain } = defaultPrompt({
      ...{ 4: { ckpt_name: "mini-sdxl" }, 3: { latent_image: ["22", 0], denoise: 0.5, steps: 3 } },
    });
    const { images } = await client.enqueue({
      ...plain,
      20: { class_type: "LoadImage", inputs: { image: "start.png" } },
      21: { class_type: "LoadImageMask", inputs: { image: "mask.png", channel: "red" } },
      23: { class_type: "VAEEncode", inputs: { pixels: ["20", 0], vae: ["4", 2] } },
      22: { class_type: "SetLatentNoiseMask", inputs: { samples: ["23", 0], mask: ["21", 0] } },
    } as never);
    const found = (images as { type: string; data: string }[]).find(({ type }) => type === "url");
    const png = await sampledPng([
      ...["a (red:1.2) house", "--negative-prompt", "blurry", "--compat", "comfyui"],
      ...["--steps", "3", "--seed", "42", "--scheduler", "euler", "--sigmas", "normal"],
      ...["--guidance-scale", "8", "--image", image.path, "--mask", mask.path],
      ...["--strength", "0.5"],
    ]);
    expect(png).toEqual(await (await fetch(found!.data)).bytes());
    client.close();
  });

  test("stops it", async () => {
    const client = connected();
    const prompt = defaultPrompt({ 4: { ckpt_name: "mini-sdxl" }, 3: { steps: 1000 } });
    const stopped = new Promise((resolve) => client.on("execution_interrupted", resolve));
    await new Promise<void>((resolve) => client.on("status", () => resolve()));
    const { prompt_id: id } = await client._enqueue_prompt(prompt);
    await until(isRunning);
    await client.interrupt(id);
    expect(await stopped).toMatchObject({ prompt_id: id, node_id: "3", node_type: "KSampler" });
    const history = await (await fetch(`${server.url}/history/${id}`)).json();
    expect(history).toMatchObject({ [id]: { status: { status_str: "error", completed: false } } });
    client.close();
  });
});

test("ids of clients and the history survive a restart", async () => {
  await using folder = await startDialectServer();
  const { outputs } = folder;
  const post = async (url: string, path: string, body: object) => {
    const response = await fetch(`${url}${path}`, { method: "POST", body: JSON.stringify(body) });
    return (await response.json()) as Record<string, unknown>;
  };
  const task = { force_task_id: "task(mine)" };
  const history = async (url: string) => await (await fetch(`${url}/history/mine`)).json();
  const before = await (async () => {
    const prompt = defaultPrompt({ 4: { ckpt_name: "mini-sdxl" } });
    await post(folder.url, "/prompt", { prompt, prompt_id: "mine" });
    const fields = { width: 64, height: 64, steps: 2 };
    await post(folder.url, "/sdapi/v1/txt2img", { prompt: "a", ...fields, ...task });
    return await history(folder.url);
  })();
  expect(before).toMatchObject({ mine: { status: { status_str: "success" } } });
  await folder.stop();
  await using again = await startDialectServer({ outputs });
  expect(await history(again.url)).toEqual(before);
  const progress = await post(again.url, "/internal/progress", { id_task: "task(mine)" });
  expect(progress).toMatchObject({ active: false, queued: false, completed: true });
});
