/**
 * A server with what goes beside the golden model: a refiner, a model for inpainting, IP-Adapters
 * with their encoder, an upscaler and a ControlNet, each in the folder that ComfyUI has for it.
 */
import { cpSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { goldenModel } from "../../src/bench/support/golden-model.ts";
import { encodeFile } from "../../src/image.ts";
import { readConfig } from "../../src/serve/config.ts";
import { startServer } from "../../src/serve/server.ts";
import { controlFolder, removeControls } from "./control-networks.ts";
import { sampledPng } from "./dialect-server.ts";
import { inpaintingModel } from "./inpainting-model.ts";
import { folder as hubFolder, ipImage, writeIpAdapters } from "./ip-adapter-files.ts";
import { removeCopies } from "./model-copy.ts";
import { refinerFolder } from "./refiner-model.ts";
import { removeUpscalers, writeUpscaler } from "./upscaler-files.ts";

const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

/** Ready when it resolves, and its lists complete. */
export async function startNetworksServer() {
  const folder = mkdtempSync(join(tmpdir(), "basedxl-networks-"));
  const paths = await writeFiles(folder);
  const images = [0, 1].map((number) => join(folder, `${number}.png`));
  for (const [number, path] of images.entries()) {
    await Bun.write(path, (await encodeFile("png", ipImage(number))).bytes);
  }
  const flags = { port: "0", device: "cpu", "models-dir": paths.models };
  const env = { BASEDXL_SERVE_MODEL: [goldenModel, paths.refiner, paths.inpainting].join() };
  const config = readConfig({ flags: { ...flags, outputs: join(folder, "out") }, env });
  const server = await startServer({ config, log: silent });
  const { url } = server;
  while ((await fetch(`${url}ready`)).status !== 200) await Bun.sleep(10);
  await fetch(`${url}api/v1/refresh`, { method: "POST" });
  return {
    ...{ url: url.replace(/\/$/, ""), paths, images },
    /** The PNG that the command writes with the golden model. */
    sampled: (flags: readonly string[]) => sampledPng(["--model", goldenModel, ...flags]),
    async [Symbol.asyncDispose]() {
      await server.stop();
      rmSync(folder, { recursive: true });
      removeCopies();
      removeControls();
      removeUpscalers();
    },
  };
}

export type NetworksServer = Awaited<ReturnType<typeof startNetworksServer>>;

// --- internal ---

async function writeFiles(folder: string) {
  const models = join(folder, "models");
  const refiner = join(folder, "refiner");
  const inpainting = join(folder, "inpainting");
  const paths = {
    ...{ models, refiner, inpainting },
    plain: join(models, "ipadapter/plain.safetensors"),
    plus: join(models, "ipadapter/plus.safetensors"),
    upscaler: join(models, "upscale_models/sharp.safetensors"),
    control: join(models, "controlnet/outlines"),
  };
  for (const name of ["ipadapter", "upscale_models", "controlnet"]) {
    mkdirSync(join(models, name), { recursive: true });
  }
  const { plain, plus } = writeIpAdapters();
  cpSync(plain, paths.plain);
  cpSync(plus, paths.plus);
  const encoder = join(models, "ipadapter/image_encoder");
  cpSync(join(hubFolder, "models/image_encoder"), encoder, { recursive: true });
  cpSync(writeUpscaler("rrdbnet_x2"), paths.upscaler);
  cpSync(controlFolder("plain"), paths.control, { recursive: true });
  cpSync(refinerFolder(), refiner, { recursive: true });
  cpSync((await inpaintingModel()).path, inpainting, { recursive: true });
  return paths;
}
