/**
 * `basedxl sample --model FILE.safetensors` as users run it: the image of the folder with the same
 * weights, byte for byte, and refusals in one sentence.
 */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { goldenModel } from "../../src/bench/support/golden-model.ts";
import { writeSingleFile, writeSparseFile } from "../../src/bench/support/single-file.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { checkpointTensors, shapesOf } from "../support/original-headers.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-sample-file-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function sample(model: string, ...args: string[]) {
  const main = join(import.meta.dir, "../../src/main.ts");
  const small = ["--steps", "2", "--width", "64", "--height", "64", "--device", "cpu"];
  const flags = ["--prompt", "a red circle", "--seed", "3", "--quiet", ...small, ...args];
  const command = [process.execPath, main, "sample", "--model", model, ...flags];
  const child = Bun.spawn(command, { cwd: folder, stdin: "ignore", stderr: "pipe" });
  const stderr = await new Response(child.stderr).text();
  return { stderr, exitCode: await child.exited };
}

test("a checkpoint in one file gives the image of its folder", async () => {
  const file = join(folder, "golden.safetensors");
  writeSingleFile(await openModelFolder(goldenModel), file);
  // Parameters in the file would name the model.
  const plain = "--no-metadata";
  const one = await sample(file, "--config", goldenModel, "--out", "one.png", plain);
  expect(one).toEqual({ stderr: "", exitCode: 0 });
  await sample(goldenModel, "--out", "folder.png", plain);
  const [first, second] = ["one.png", "folder.png"].map((name) => readFileSync(join(folder, name)));
  expect(first).toEqual(second!);
}, 60_000);

test("a refiner and an inpainting model are refused by what they need", async () => {
  for (const [variant, need, other] of [
    ["refiner", "a refiner, which finishes the images of a base model", ", or give an image"],
    [
      "inpainting",
      "for inpainting, which fills a masked part of an image",
      ", or an image and its mask",
    ],
  ] as const) {
    writeSparseFile(join(folder, `${variant}.safetensors`), shapesOf(checkpointTensors(variant)));
    const { stderr, exitCode } = await sample(`${variant}.safetensors`);
    expect(stderr).toBe(
      `error: The model ${variant} is ${need}: from text alone it cannot generate; name a base ` +
        `model${other}.\n`,
    );
    expect(exitCode).not.toBe(0);
  }
}, 60_000);
