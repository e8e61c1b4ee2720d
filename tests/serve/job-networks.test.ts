/**
 * Jobs with IP-Adapters, a refiner, and an upscaler in the second pass: their files are those of
 * the server's lists, and the image is the command's.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import sharp from "sharp";
import { sampledPng } from "../support/dialect-server.ts";
import { colouredPng, squareMask, written } from "../support/input-images.ts";
import { type NetworksServer, startNetworksServer } from "../support/networks-server.ts";

setDefaultTimeout(120_000);

let server: NetworksServer;
beforeAll(async () => {
  server = await startNetworksServer();
});
afterAll(async () => await server?.[Symbol.asyncDispose]());

const small = { prompt: "a red circle", width: 64, height: 64, num_inference_steps: 3, seed: 7 };
const flagsOfSize = ["--width", "64", "--height", "64", "--steps", "3", "--seed", "7"];

async function post(body: object | FormData) {
  const isForm = body instanceof FormData;
  return await fetch(`${server.url}/api/v1/jobs`, {
    method: "POST",
    ...(isForm ? { body } : { body: JSON.stringify(body) }),
    headers: isForm ? {} : { "Content-Type": "application/json" },
  });
}

const commands = (flags: readonly string[]) => {
  return server.sampled(["a red circle", ...flagsOfSize, ...flags]);
};

/** The PNG of the job. */
async function generated(body: object | FormData): Promise<Uint8Array> {
  const response = await post(body);
  const { id, ...rest } = (await response.json()) as { id: string };
  expect({ status: response.status, rest }).toMatchObject({ status: 202 });
  const events = await (await fetch(`${server.url}/api/v1/jobs/${id}/events`)).text();
  expect(events).toContain("event: done");
  return await (await fetch(`${server.url}/api/v1/jobs/${id}/images/0`)).bytes();
}

const base64 = async (path: string) => (await Bun.file(path).bytes()).toBase64();

test("the capabilities list what jobs may name", async () => {
  expect(await (await fetch(`${server.url}/api/v1/capabilities`)).json()).toMatchObject({
    models: [
      { id: "model", kind: "base" },
      { id: "refiner", kind: "refiner" },
      { id: "inpainting", kind: "inpainting" },
    ],
    ipAdapters: [{ name: "plain" }, { name: "plus" }],
    controlnets: [{ name: "outlines" }],
    upscalers: [{ name: "sharp", scale: 2 }],
    features: { ipAdapter: true, refiner: true },
  });
});

describe("the image is the command's", () => {
  test("with an IP-Adapter that sees two images, in JSON", async () => {
    const request = { ...small, ip_adapter: ["plus"], ip_scale: [0.6, 0.4], ip_end: [0.7] };
    const ip_images = await Promise.all(server.images.map(base64));
    const flags = server.images.flatMap((path) => ["--ip-image", path]);
    const scales = ["--ip-scale", "0.6", "--ip-scale", "0.4", "--ip-end", "0.7"];
    const png = await commands(["--ip-adapter", server.paths.plus, ...flags, ...scales]);
    expect(await generated({ request, ip_images })).toEqual(png);
  });

  test("with two adapters, as a form", async () => {
    const form = new FormData();
    form.set("job", JSON.stringify({ request: { ...small, ip_adapter: ["plain", "plus"] } }));
    for (const path of server.images) form.append("ip_image", Bun.file(path), "image.png");
    const uses = [server.paths.plain, server.paths.plus].map((path, i) => [
      ...["--ip-adapter", path, "--ip-image", server.images[i]!],
    ]);
    expect(await generated(form)).toEqual(await commands(uses.flat()));
  });

  test("with a refiner, which other jobs go without", async () => {
    const request = { ...small, denoising_end: 0.6 };
    const refined = await generated({ request, refiner: "refiner" });
    expect(refined).toEqual(
      await commands(["--refiner", server.paths.refiner, "--denoising-end", "0.6"]),
    );
    expect(await generated({ request: small })).toEqual(await commands([]));
  });

  test("with an upscaler in the second pass", async () => {
    const request = { ...small, hires: 2, hires_upscaler: "sharp" };
    const upscaler = ["--hires-upscaler", server.paths.upscaler];
    expect(await generated({ request })).toEqual(await commands(["--hires", "2", ...upscaler]));
  });
});

test("another model's VAE decodes, by the model's name", async () => {
  const pixels = async (bytes: Uint8Array) => await sharp(bytes).raw().toBuffer();
  const png = await commands(["--vae", server.paths.refiner]);
  const made = await generated({ request: small, vae: "refiner" });
  expect(await pixels(made)).toEqual(await pixels(png));
});

test("a model for inpainting is one of the list", async () => {
  const size = { width: 64, height: 64 };
  const [image, mask] = [await colouredPng(size), await squareMask(size)];
  const from = { image: image.toBase64(), mask: mask.toBase64(), model: "inpainting" };
  await using start = await written(image);
  await using part = await written(mask);
  const flags = ["--model", server.paths.inpainting, "--image", start.path, "--mask", part.path];
  const png = await sampledPng(["a red circle", ...flagsOfSize, ...flags]);
  expect(await generated({ request: small, ...from })).toEqual(png);
});

test("an image says which model finished it", async () => {
  const bytes = await generated({ request: { ...small, denoising_end: 0.6 }, refiner: "refiner" });
  const body = bytes as Uint8Array<ArrayBuffer>;
  const said = await fetch(`${server.url}/api/v1/metadata`, { method: "POST", body });
  expect(await said.json()).toMatchObject({ model: "model", refiner: "refiner", warnings: [] });
});

interface Asked {
  request: object;
  model?: string;
  refiner?: string;
  imageCount?: number;
}

const seen = (fields: object) => ({ request: { ...small, ...fields }, imageCount: 1 });

test.each<[string, Asked, RegExp]>([
  ["no image", { ...seen({ ip_adapter: ["plain"] }), imageCount: 0 }, /needs an image/],
  ["a path", seen({ ip_adapter: ["/etc/passwd"] }), /not a path/],
  ["another name", seen({ ip_adapter: ["plian"] }), /IP-Adapter .* mean plain\?/],
  ["an encoder's path", seen({ ip_adapter: ["plain"], ip_encoder: ["../x"] }), /not a path/],
  ["too many images", { ...seen({ ip_adapter: ["plus"] }), imageCount: 17 }, /at most 16/],
  ["another refiner", { request: small, refiner: "refined" }, /no model .* refiner\?/],
  ["a path of one", { request: small, refiner: "/etc/passwd" }, /no model "\/etc\/passwd"/],
  ["an end without one", { request: { ...small, denoising_end: 0.5 } }, /needs refiner/],
  ["both", { request: { ...small, hires: 2 }, refiner: "refiner" }, /one of them/],
  ["a refiner alone", { request: small, model: "refiner" }, /which finishes/],
  ["no upscaler", { request: { ...small, hires: 2, hires_upscaler: "x" } }, /no upscaler/],
])("%s is refused in a sentence", async (_, { imageCount = 0, ...body }, sentence) => {
  const image = await base64(server.images[0]!);
  const ip_images = Array<string>(imageCount).fill(image);
  const response = await post({ ...body, ...(imageCount > 0 && { ip_images }) });
  const { error } = (await response.json()) as { error: { message: string } };
  expect(response.status).toBe(400);
  expect(error.message).toMatch(sentence);
});
