/**
 * IP-Adapters, refiners and upscalers as other programs ask for them: the images are the command's.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { Client } from "@stable-canvas/comfyui-client";
import sharp from "sharp";
import { defaultPrompt, refinedPrompt } from "../support/comfy-prompt.ts";
import { type NetworksServer, startNetworksServer } from "../support/networks-server.ts";

setDefaultTimeout(120_000);

let server: NetworksServer;
beforeAll(async () => {
  server = await startNetworksServer();
});
afterAll(async () => await server?.[Symbol.asyncDispose]());

async function post<T>(path: string, body: object): Promise<T> {
  const response = await fetch(server.url + path, { method: "POST", body: JSON.stringify(body) });
  const answer = await response.json();
  expect({ status: response.status, answer }).toMatchObject({ status: 200 });
  return answer as T;
}

const decoded = (text: string): Uint8Array => Uint8Array.fromBase64(text);
const base64 = async (path: string) => (await Bun.file(path).bytes()).toBase64();
const small = ["--width", "64", "--height", "64", "--seed", "7"];

describe("A1111", () => {
  const asked = {
    ...{ prompt: "a red circle", width: 64, height: 64, steps: 5, seed: 7 },
    ...{ sampler_name: "Euler", scheduler: "Karras" },
  };
  const imageOf = async (fields: object) => {
    const { images } = await post<{ images: string[] }>("/sdapi/v1/txt2img", {
      ...{ ...asked, ...fields },
    });
    return decoded(images[0]!);
  };
  const commands = (...flags: string[]) => {
    const same = ["--compat", "a1111", "--steps", "5", "--guidance-scale", "7", ...small];
    const sampler = ["--scheduler", "Euler", "--sigmas", "karras"];
    return server.sampled(["a red circle", ...same, ...sampler, ...flags]);
  };

  test("a refiner takes the steps from refiner_switch_at on", async () => {
    const png = await commands("--refiner", server.paths.refiner, "--denoising-end", "0.6");
    const fields = { refiner_checkpoint: "refiner", refiner_switch_at: 0.6 };
    expect(await imageOf(fields)).toEqual(png);
  });

  test("hr_upscaler is an upscaler of the list", async () => {
    const listed = await (await fetch(`${server.url}/sdapi/v1/upscalers`)).json();
    expect((listed as { name: string }[]).map(({ name }) => name)).toEqual([
      ...["None", "Lanczos", "Nearest", "sharp"],
    ]);
    const second = ["--hires", "2", "--hires-strength", "0.5"];
    const png = await commands(...second, "--hires-upscaler", server.paths.upscaler);
    const fields = { enable_hr: true, hr_upscaler: "sharp", denoising_strength: 0.5 };
    expect(await imageOf(fields)).toEqual(png);
  });

  test("a unit shows an image to an IP-Adapter, beside one with a hint", async () => {
    const [seen, hint] = server.images;
    const args = [
      { module: "ip-adapter-auto", model: "plus", weight: 0.6, image: await base64(seen!) },
      { module: "none", model: "outlines", image: await base64(hint!) },
    ];
    const shown = ["--ip-adapter", server.paths.plus, "--ip-image", seen!, "--ip-scale", "0.6"];
    const steered = ["--controlnet", server.paths.control, "--control-image", hint!];
    const png = await commands(...shown, ...steered);
    expect(await imageOf({ alwayson_scripts: { controlnet: { args } } })).toEqual(png);
    const { model_list } = (await (await fetch(`${server.url}/controlnet/model_list`)).json()) as {
      model_list: string[];
    };
    expect(model_list).toEqual(["outlines", "plain", "plus"]);
  });

  test.each<[object, [number, number]]>([
    [{ upscaling_resize: 2 }, [96, 80]],
    [{ upscaling_resize: 1.5 }, [72, 56]],
    [{ resize_mode: 1, upscaling_resize_w: 60, upscaling_resize_h: 80 }, [60, 80]],
    [
      { resize_mode: 1, upscaling_resize_w: 60, upscaling_resize_h: 80, upscaling_crop: false },
      [96, 80],
    ],
  ])("extras with an upscaler: %j", async (fields, size) => {
    const image = await base64(server.images[0]!);
    const names = ["sharp", "Lanczos"];
    const [sharpened, filtered] = await Promise.all(
      names.map(async (upscaler_1) => {
        const body = { image, upscaler_1, ...fields };
        const { image: made } = await post<{ image: string }>("/sdapi/v1/extra-single-image", body);
        const { data, info } = await sharp(Uint8Array.fromBase64(made))
          .raw()
          .toBuffer({ resolveWithObject: true });
        expect([info.width, info.height, info.channels]).toEqual([...size, 3]);
        return data;
      }),
    );
    expect(sharpened!.equals(filtered!)).toBe(false);
  });
});

describe("ComfyUI", () => {
  test("a client has both models of the example's workflow sample", async () => {
    const client = new Client({
      ...{ api_host: server.url.replace("http://", ""), clientId: crypto.randomUUID() },
    } as never);
    client.connect();
    await new Promise<void>((resolve) => client.on("status", () => resolve()));
    const steps: Record<string, number[]> = {};
    client.on("message", ({ data }) => {
      if (typeof data !== "string") return;
      const { type, data: said } = JSON.parse(data);
      if (type !== "progress") return;
      steps[said.node] = [...(steps[said.node] ?? []), said.value / said.max];
    });
    const prompt = refinedPrompt({
      ...{ 4: { ckpt_name: "model" }, 12: { ckpt_name: "refiner" }, 17: { vae: ["4", 2] } },
    });
    const { images } = await client.enqueue(prompt as never);
    client.close();
    // Previews are among them.
    const found = (images as { type: string; data: string }[]).find(({ type }) => type === "url");
    const image = await (await fetch(found!.data)).bytes();
    const same = ["--compat", "comfyui", "--steps", "5", "--guidance-scale", "8"];
    const own = ["--seed", "42", "--scheduler", "euler", "--sigmas", "normal"];
    const shared = ["--refiner", server.paths.refiner, "--denoising-end", "0.6"];
    const flags = [...same, ...own, ...shared, "--negative-prompt", "blurry"];
    const size = ["--width", "64", "--height", "64"];
    const png = await server.sampled(["a red circle", ...size, ...flags]);
    expect(image as Uint8Array).toEqual(png);
    // Steps that take no time are not all reported.
    for (const [node, shares] of Object.entries(steps)) {
      expect(node).toBeOneOf(["10", "11"]);
      expect(shares).toEqual(shares.toSorted((a, b) => a - b));
      expect(Math.max(...shares)).toBeLessThanOrEqual(1);
    }
  });

  test("an upscaler enlarges behind the decoder, and an image to start from", async () => {
    const same = ["--compat", "comfyui", "--steps", "4", "--guidance-scale", "8", "--seed", "42"];
    const own = ["--scheduler", "euler", "--sigmas", "normal", "--negative-prompt", "blurry"];
    const nodes = {
      20: { class_type: "UpscaleModelLoader", inputs: { model_name: "sharp.safetensors" } },
      21: {
        class_type: "ImageUpscaleWithModel",
        inputs: { upscale_model: ["20", 0], image: ["8", 0] },
      },
    };
    const wanted = { 4: { ckpt_name: "model" }, 9: { images: ["21", 0] } };
    const file = await generated({ ...defaultPrompt(wanted), ...nodes });
    const enlarged = ["--hires", "2", "--hires-strength", "0"];
    const upscaler = ["--hires-upscaler", server.paths.upscaler];
    const flags = [...same, ...own, ...enlarged, ...upscaler, "--width", "64", "--height", "64"];
    expect(file).toEqual(await server.sampled(["a (red:1.2) house", ...flags]));

    const form = new FormData();
    form.append("image", Bun.file(server.images[0]!), "start.png");
    await fetch(`${server.url}/upload/image`, { method: "POST", body: form });
    const from = defaultPrompt({
      ...{ 4: { ckpt_name: "model" }, 3: { latent_image: ["23", 0], denoise: 0.5 } },
    });
    const started = await generated({
      ...from,
      ...nodes,
      21: { ...nodes[21], inputs: { upscale_model: ["20", 0], image: ["24", 0] } },
      23: { class_type: "VAEEncode", inputs: { pixels: ["21", 0], vae: ["4", 2] } },
      24: { class_type: "LoadImage", inputs: { image: "start.png" } },
    });
    // The image has 50x40 pixels, and twice as large sides that SDXL cannot have.
    const { width, height } = await sharp(started).metadata();
    expect([width, height]).toEqual([96, 96]);
  });
});

/** The file of a prompt's job. */
async function generated(prompt: object): Promise<Uint8Array> {
  const { prompt_id: id } = await post<{ prompt_id: string }>("/prompt", { prompt });
  await (await fetch(`${server.url}/api/v1/jobs/${id}/events`)).text();
  return await (await fetch(`${server.url}/api/v1/jobs/${id}/images/0`)).bytes();
}
