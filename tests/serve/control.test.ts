/**
 * Jobs that ControlNets steer: hints travel with the request, networks are those of the folders of
 * models, and the image is the command's.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import type { Capabilities } from "../../src/serve/capabilities.ts";
import { readConfig } from "../../src/serve/config.ts";
import { startServer } from "../../src/serve/server.ts";
import { controlFolder, removeControls } from "../support/control-networks.ts";
import { sampledPng } from "../support/dialect-server.ts";
import { colouredPng } from "../support/input-images.ts";
import { root } from "../support/sources.ts";

setDefaultTimeout(120_000);

const folder = mkdtempSync(join(tmpdir(), "basedxl-control-"));
const model = join(root, "tests/fixtures/golden/model");
const network = join(folder, "models/controlnet/plain");
const hint = join(folder, "hint.png");
const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
let server: Awaited<ReturnType<typeof startServer>>;

beforeAll(async () => {
  mkdirSync(join(folder, "models/controlnet"), { recursive: true });
  cpSync(controlFolder("plain"), network, { recursive: true });
  await Bun.write(hint, await colouredPng({ width: 64, height: 64 }));
  const flags = { port: "0", device: "cpu", model, "models-dir": join(folder, "models") };
  const config = readConfig({ flags: { ...flags, outputs: join(folder, "out") }, env: {} });
  server = await startServer({ config, log: silent });
  while ((await fetch(`${server.url}ready`)).status !== 200) await Bun.sleep(10);
});
afterAll(async () => {
  await server?.stop();
  rmSync(folder, { recursive: true });
  removeControls();
});

const request = {
  ...{ prompt: "a red circle", width: 64, height: 64, num_inference_steps: 2, seed: 7 },
  ...{ controlnet: ["plain"], control_scale: [0.5] },
};

async function post(path: string, body: object) {
  return await fetch(`${server.url}${path}`, {
    ...{ method: "POST", body: JSON.stringify(body) },
    headers: { "Content-Type": "application/json" },
  });
}

const pixelsOf = async (bytes: Uint8Array) => await sharp(bytes).raw().toBuffer();

test("a job with a hint is the image of the command", async () => {
  const document = (await (await fetch(`${server.url}api/v1/capabilities`)).json()) as Capabilities;
  expect(document).toMatchObject({ controlnets: [{ name: "plain" }] });
  const namesOf = (name: string) => document.settings.find((each) => each.name === name)?.names;
  expect(namesOf("control_preprocess")).toEqual(["none", "canny", "grey", "blur", "tile"]);
  expect(namesOf("control_type")).toContain("openpose");
  const control_images = [(await Bun.file(hint).bytes()).toBase64()];
  const response = await post("api/v1/jobs", { request, control_images });
  const { id } = (await response.json()) as { id: string };
  expect(response.status).toBe(202);
  await (await fetch(`${server.url}api/v1/jobs/${id}/events`)).text();
  const image = await (await fetch(`${server.url}api/v1/jobs/${id}/images/0`)).bytes();
  const size = ["--width", "64", "--height", "64", "--steps", "2", "--seed", "7"];
  const steered = ["--controlnet", network, "--control-image", hint, "--control-scale", "0.5"];
  const png = await sampledPng(["a red circle", "--model", model, ...size, ...steered]);
  expect(await pixelsOf(image)).toEqual(await pixelsOf(png));
});

test("so is A1111's, by a unit of its extension", async () => {
  const unit = { model: "plain", weight: 0.5, image: (await Bun.file(hint).bytes()).toBase64() };
  const size = { width: 64, height: 64, steps: 2, seed: 7, sampler_name: "Euler" };
  const body = { prompt: "a red circle", ...size };
  const images = async (more: object) => {
    const response = await post("sdapi/v1/txt2img", { ...body, ...more });
    return ((await response.json()) as { images: string[] }).images;
  };
  const [steered, plain] = [
    await images({ alwayson_scripts: { controlnet: { args: [unit] } } }),
    await images({}),
  ];
  expect(steered).toHaveLength(1);
  expect(steered[0]).not.toBe(plain[0]);
});

test.each<[string, object, RegExp]>([
  ["no hint", {}, /hint image/],
  ["a name that is not listed", { controlnet: ["/etc/passwd"] }, /The ControlNet .* not a path/],
])("%s is refused in a sentence", async (_, fields, sentence) => {
  const hints = "controlnet" in fields ? [(await Bun.file(hint).bytes()).toBase64()] : [];
  const body = { request: { ...request, ...fields }, control_images: hints };
  const response = await post("api/v1/jobs", body);
  expect(response.status).toBe(400);
  expect(await response.text()).toMatch(sentence);
});
