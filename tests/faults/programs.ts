/**
 * Programs that faults befall: what they need, what they make, and what must be there in the end.
 */
import { cpSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { writeRandomLora } from "../../src/bench/support/random-lora.ts";
import { writeSingleFile } from "../../src/bench/support/single-file.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { random } from "../support/hub-bytes.ts";
import { type HubServer, startHubServer } from "../support/hub-server.ts";
import { plainRun, type Run } from "./run.ts";

export interface Program {
  /** Makes what a run needs in an empty folder, with the files that it is to replace. */
  prepare(folder: string): void | Promise<void>;
  run(folder: string): Run;
  /** Of a run's folder: where the results are. */
  out: string;
  /** Files there that are no results, and that the next run removes or goes on with. */
  ignored: RegExp;
}

const root = join(import.meta.dir, "../..");
export const main = join(root, "src/main.ts");
export const golden = join(root, "tests/fixtures/golden/model");
const extractRun = Bun.fileURLToPath(new URL("./extract-run.ts", import.meta.url));

function sampling(stepCount: number, more: string[], model = "model"): Program {
  return {
    ...{ out: "out", ignored: /^$/ },
    prepare(folder) {
      if (model === "model") cpSync(golden, join(folder, "model"), { recursive: true });
      mkdirSync(join(folder, "out"));
      for (const name of ["image-1.png", "image-2.png"])
        writeFileSync(join(folder, "out", name), "as it was");
    },
    run(folder) {
      const size = ["--width", "64", "--height", "64", "--num-images", "2", "--batch-size", "1"];
      const files = ["--out", "out/image.png", "--save-latents", "out/latents.safetensors"];
      const how = ["--model", model, "--steps", `${stepCount}`, "--seed", "7", "--no-metadata"];
      return plainRun(folder, [main, "sample", "a cat", ...how, ...size, ...files, ...more]);
    },
  };
}

/** Two images and their latents; the first two replace files that are there. */
export const sample = sampling(2, ["--device", "cpu"]);

/** The same with steps enough that something can happen meanwhile. */
export const longSample = sampling(150, ["--device", "cpu"]);

/** The same model in one file. */
const ofFile = sampling(2, ["--device", "cpu", "--config", golden], "single/one.safetensors");
export const fileSample: Program = {
  ...ofFile,
  async prepare(folder) {
    await ofFile.prepare(folder);
    mkdirSync(join(folder, "single"));
    writeSingleFile(await openModelFolder(golden), join(folder, "single/one.safetensors"));
  },
};

/** With a LoRA. */
const ofLora = sampling(2, ["--device", "cpu", "--lora", "loras/style.safetensors"]);
export const loraSample: Program = {
  ...ofLora,
  async prepare(folder) {
    await ofLora.prepare(folder);
    mkdirSync(join(folder, "loras"));
    const file = join(folder, "loras/style.safetensors");
    writeRandomLora(file, await openModelFolder(golden), /attn1\.to_/);
  },
};

/** On two emulated GPUs. */
export const gpuSample = sampling(1, ["--device", "cuda-emulated", "--gpus", "2"]);

export const commit = "0123456789abcdef0123456789abcdef01234567";
export const downloaded = random(3_000_000, 1);

/** `pull` from a hub on this machine, whose answers `hub.fault` decides. */
export async function pulling(): Promise<Program & { hub: HubServer }> {
  const hub = await startHubServer();
  const files = { "a.safetensors": downloaded, "README.md": random(100, 2) };
  hub.repositories.set("org/single", { commit, files });
  return {
    ...{ hub, out: "hub", ignored: /\.(incomplete|lock|part)$|^\.locks|CACHEDIR\.TAG$/ },
    prepare: (folder) => mkdirSync(join(folder, "hub")),
    run(folder) {
      const env = { HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: join(folder, "hub") };
      const limits = { HF_HUB_DOWNLOAD_TIMEOUT: "0.3" };
      return plainRun(folder, [main, "pull", "org/single"], { ...env, ...limits });
    },
  };
}

/** What a binary does when it starts: its files go to the cache. */
export const extraction: Program = {
  ...{ out: "cache", ignored: /\.part$|\.probe-[0-9a-f-]+$/ },
  prepare(folder) {
    mkdirSync(join(folder, "cache"), { mode: 0o700 });
    for (const [index, name] of ["a.so", "model/b"].entries())
      writeFileSync(join(folder, `source-${name.replace("/", "-")}`), random(200_000, index));
  },
  run: (folder) => plainRun(folder, [extractRun, folder]),
};
