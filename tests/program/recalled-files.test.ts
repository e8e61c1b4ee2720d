/**
 * Files of models that images name: told apart by their hashes, never by where they lie, and
 * warned of where others have taken their names.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { goldenModel } from "../../src/bench/support/golden-model.ts";
import { runCli } from "../../src/cli.ts";
import { recallImage } from "../../src/metadata.ts";
import { embeddingFiles, removeEmbeddings } from "../support/embedding-files.ts";
import { writeReferenceAdapters } from "../support/reference-adapters.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-recalled-"));
const adapters = writeReferenceAdapters();
const before = { ...process.env };
beforeAll(() => {
  process.env.BASEDXL_CACHE_DIR = join(folder, "cache");
  delete process.env.BASEDXL_MODELS_DIR;
});
afterAll(() => {
  for (const name of ["BASEDXL_CACHE_DIR", "BASEDXL_MODELS_DIR"]) {
    if (before[name] === undefined) delete process.env[name];
    else process.env[name] = before[name];
  }
  removeEmbeddings();
  rmSync(folder, { recursive: true });
});

let count = 0;

/** The path of an image of these flags. */
async function sample(...args: string[]): Promise<string> {
  const out = join(folder, `${count++}.png`);
  const size = args.includes("--from-image") ? [] : ["--width", "64", "--height", "64"];
  const steps = args.includes("--from-image") ? [] : ["--steps", "2", "--seed", "3"];
  const golden = ["--model", goldenModel, "--device", "cpu", "--quiet", "--out", out];
  expect(await runCli(["sample", ...args, ...size, ...steps, ...golden])).toBe(0);
  return out;
}

/** Pixels alone: what an image says of itself may differ. */
function pixels(path: string): Buffer {
  const bytes = readFileSync(path);
  return bytes.subarray(bytes.indexOf("IDAT"));
}

/** A copy of a file in a folder of models. */
function put(source: string, ...names: [string, ...string[]]): string {
  const path = join(folder, ...names);
  mkdirSync(join(path, ".."), { recursive: true });
  cpSync(source, path);
  return path;
}

test("two LoRAs of one name keep their own hashes and scales", async () => {
  const a = put(adapters.get("kohya_sgm")!, "models", "loras", "a", "x.safetensors");
  const b = put(adapters.get("peft")!, "elsewhere", "x.safetensors");
  const flags = ["--models-dir", join(folder, "models")];
  for (const args of [
    ["a cat", "--lora", `${a}:0.8`, "--lora", `${b}:0.3`],
    ["a cat <lora:x:0.8>", "--lora", `${b}:0.3`],
  ]) {
    const image = await sample(...args, ...flags);
    const again = await sample("--from-image", image, ...flags);
    expect(readFileSync(again).equals(readFileSync(image))).toBe(true);
  }
});

test("a path in a prompt's tag is a name in the image, found again by its hash", async () => {
  const path = put(adapters.get("peft")!, "private", "ink.safetensors");
  const image = await sample(`a cat <lora:${path}:0.8>`);
  expect(readFileSync(image).includes(folder)).toBe(false);
  expect(readFileSync(image).toString("latin1")).toContain("a cat <lora:ink:0.8>\n");
  const again = await sample("--from-image", image);
  expect(pixels(again).equals(pixels(image))).toBe(true);
});

test("LoRAs and embeddings that others have replaced", async () => {
  const [half, other] = ["half", "blot-style"].map((name) => embeddingFiles().get(name)!);
  const replace = (lora: string, embedding: string) => {
    rmSync(join(folder, "own"), { recursive: true, force: true });
    put(lora, "own", "loras", "ink.safetensors");
    put(embedding, "own", "embeddings", "half.safetensors");
  };
  const modelsDir = join(folder, "own");
  const explicit = new Set(["model"] as const);
  replace(adapters.get("kohya_sgm")!, half!);
  const tagged = await sample("half <lora:ink:0.8>", "--models-dir", modelsDir);
  const flagged = await sample("half", "--lora", "ink:0.8", "--models-dir", modelsDir);
  for (const image of [tagged, flagged]) {
    expect((await recallImage(image, { modelsDir, explicit })).warnings).toEqual([]);
  }
  rmSync(process.env.BASEDXL_CACHE_DIR!, { recursive: true });
  replace(adapters.get("peft")!, other!);
  for (const image of [tagged, flagged]) {
    expect((await recallImage(image, { modelsDir, explicit })).warnings).toEqual([
      expect.stringMatching(/ink\.safetensors has another hash than ink \([0-9a-f]{10}\): images/),
      expect.stringMatching(/half\.safetensors has another hash than half \([0-9a-f]{10}\): /),
    ]);
  }
  rmSync(modelsDir, { recursive: true });
  rmSync(process.env.BASEDXL_CACHE_DIR!, { recursive: true });
  expect((await recallImage(flagged, { modelsDir: [], explicit })).warnings).toEqual([
    expect.stringMatching(/^The LoRA ink \([0-9a-f]{10}\) is not in the folders of models/),
    expect.stringMatching(/^The embedding half \([0-9a-f]{10}\) is not in the folders of models/),
  ]);
});
