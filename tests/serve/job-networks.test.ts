/**
 * Jobs with IP-Adapters, a refiner, and an upscaler in the second pass: their files are those of
 * the server's lists, and the image is the command's.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodeFile } from "../../src/image.ts";
import { readConfig } from "../../src/serve/config.ts";
import { startServer } from "../../src/serve/server.ts";
import { sampledPng } from "../support/dialect-server.ts";
import { folder as hubFolder, ipImage, writeIpAdapters } from "../support/ip-adapter-files.ts";
import { removeCopies } from "../support/model-copy.ts";
import { refinerFolder } from "../support/refiner-model.ts";
import { root } from "../support/sources.ts";
import { removeUpscalers, writeUpscaler } from "../support/upscaler-files.ts";

setDefaultTimeout(120_000);

const folder = mkdtempSync(join(tmpdir(), "basedxl-networks-"));
const models = join(folder, "models");
const model = join(root, "tests/fixtures/golden/model");
const refiner = join(folder, "refiner");
const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const images = [0, 1].map((number) => join(folder, `${number}.png`));
let server: Awaited<ReturnType<typeof startServer>>;

beforeAll(async () => {
  for (const name of ["ipadapter", "clip_vision", "upscale_models"]) {
    mkdirSync(join(models, name), { recursive: true });
  }
  const { plain, plus } = writeIpAdapters();
  cpSync(plain, join(models, "ipadapter/plain.safetensors"));
  cpSync(plus, join(models, "ipadapter/plus.safetensors"));
  cpSync(join(hubFolder, "models/image_encoder"), join(folder, "models/ipadapter/image_encoder"), {
    recursive: true,
  });
  cpSync(writeUpscaler("rrdbnet_x2"), join(models, "upscale_models/sharp.safetensors"));
  cpSync(refinerFolder(), refiner, { recursive: true });
  for (const [number, path] of images.entries()) {
    await Bun.write(path, (await encodeFile("png", ipImage(number))).bytes);
  }
  const flags = { port: "0", device: "cpu", "models-dir": models, outputs: join(folder, "out") };
  const config = readConfig({ flags, env: { BASEDXL_SERVE_MODEL: `${model},${refiner}` } });
  server = await startServer({ config, log: silent });
  while ((await fetch(`${server.url}ready`)).status !== 200) await Bun.sleep(10);
});
afterAll(async () => {
  await server?.stop();
  rmSync(folder, { recursive: true });
  removeCopies();
  removeUpscalers();
});

const small = { prompt: "a red circle", width: 64, height: 64, num_inference_steps: 3, seed: 7 };
const size = ["--width", "64", "--height", "64", "--steps", "3", "--seed", "7"];

async function post(body: object | FormData) {
  const isForm = body instanceof FormData;
  return await fetch(`${server.url}api/v1/jobs`, {
    method: "POST",
    ...(isForm ? { body } : { body: JSON.stringify(body) }),
    headers: isForm ? {} : { "Content-Type": "application/json" },
  });
}

const commands = (flags: readonly string[]) =>
  sampledPng(["a red circle", "--model", model, ...size, ...flags]);

/** The PNG of the job. */
async function generated(body: object | FormData): Promise<Uint8Array> {
  const response = await post(body);
  const { id, ...rest } = (await response.json()) as { id: string };
  expect({ status: response.status, rest }).toMatchObject({ status: 202 });
  const events = await (await fetch(`${server.url}api/v1/jobs/${id}/events`)).text();
  expect(events).toContain("event: done");
  return await (await fetch(`${server.url}api/v1/jobs/${id}/images/0`)).bytes();
}

const base64 = async (path: string) => (await Bun.file(path).bytes()).toBase64();

test("the capabilities list what jobs may name", async () => {
  const refreshed = await fetch(`${server.url}api/v1/refresh`, { method: "POST" });
  expect(refreshed.status).toBe(200);
  expect(await (await fetch(`${server.url}api/v1/capabilities`)).json()).toMatchObject({
    models: [
      { id: "model", kind: "base" },
      { id: "refiner", kind: "refiner" },
    ],
    ipAdapters: [{ name: "plain" }, { name: "plus" }],
    upscalers: [{ name: "sharp" }],
    features: { ipAdapter: true, refiner: true },
  });
});

describe("the image is the command's", () => {
  const adapter = (name: string) => join(models, `ipadapter/${name}.safetensors`);

  test("with an IP-Adapter that sees two images, in JSON", async () => {
    const request = { ...small, ip_adapter: ["plus"], ip_scale: [0.6, 0.4], ip_end: [0.7] };
    const ip_images = await Promise.all(images.map(base64));
    const flags = images.flatMap((path) => ["--ip-image", path]);
    const scales = ["--ip-scale", "0.6", "--ip-scale", "0.4", "--ip-end", "0.7"];
    const png = await commands(["--ip-adapter", adapter("plus"), ...flags, ...scales]);
    expect(await generated({ request, ip_images })).toEqual(png);
  });

  test("with two adapters, as a form", async () => {
    const form = new FormData();
    form.set("job", JSON.stringify({ request: { ...small, ip_adapter: ["plain", "plus"] } }));
    for (const path of images) form.append("ip_image", Bun.file(path), "image.png");
    const uses = ["plain", "plus"].map((name, i) => [
      ...["--ip-adapter", adapter(name), "--ip-image", images[i]!],
    ]);
    expect(await generated(form)).toEqual(await commands(uses.flat()));
  });

  test("with a refiner, which other jobs go without", async () => {
    const request = { ...small, denoising_end: 0.6 };
    const refined = await generated({ request, refiner: "refiner" });
    expect(refined).toEqual(await commands(["--refiner", refiner, "--denoising-end", "0.6"]));
    expect(await generated({ request: small })).toEqual(await commands([]));
  });

  test("with an upscaler in the second pass", async () => {
    const request = { ...small, hires: 2, hires_upscaler: "sharp" };
    const upscaler = ["--hires-upscaler", join(models, "upscale_models/sharp.safetensors")];
    expect(await generated({ request })).toEqual(await commands(["--hires", "2", ...upscaler]));
  });
});

test("an image says which model finished it", async () => {
  const bytes = await generated({ request: { ...small, denoising_end: 0.6 }, refiner: "refiner" });
  const body = bytes as Uint8Array<ArrayBuffer>;
  const said = await fetch(`${server.url}api/v1/metadata`, { method: "POST", body });
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
  const image = await base64(images[0]!);
  const ip_images = Array<string>(imageCount).fill(image);
  const response = await post({ ...body, ...(imageCount > 0 && { ip_images }) });
  const { error } = (await response.json()) as { error: { message: string } };
  expect(response.status).toBe(400);
  expect(error.message).toMatch(sentence);
});
