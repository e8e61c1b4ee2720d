/**
 * The fixtures are what the parity tests believe, so they are checked too: the formula weights are
 * those the recorded outputs were made with, everything recorded is finite, and the whole stays
 * small enough for git.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { maxAbs, relativeL2 } from "../support/compare.ts";
import { formulaTensor, readWeightsList, writeWideModel } from "../support/formula-weights.ts";
import { readSafetensors, tensorOf } from "../support/safetensors.ts";

const fixtures = join(import.meta.dirname, "../fixtures");
const bytesMax = 40_000_000;

describe("the wide model's formula weights", () => {
  let folder = "";
  beforeAll(() => {
    folder = writeWideModel();
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test.each(readWeightsList().files)("$path has the recorded checksum", ({ path, sha256 }) => {
    const bytes = readFileSync(join(folder, path));
    expect(createHash("sha256").update(bytes).digest("hex")).toBe(sha256);
  });

  test("the folder has every storage variant and both tokenizers", () => {
    const types = readWeightsList().files.map((file) => file.dtype);
    expect(new Set(types)).toEqual(new Set(["F32", "F16", "BF16"]));
    for (const path of [
      "model_index.json",
      "scheduler/scheduler_config.json",
      "tokenizer/vocab.json",
      "tokenizer_2/merges.txt",
      "text_encoder_2/model.fp16.safetensors",
      "unet/diffusion_pytorch_model.safetensors.index.json",
    ]) {
      expect(existsSync(join(folder, path))).toBe(true);
    }
  });

  test("a bf16 file reads back as the formula, to bf16's half unit in the last place", () => {
    const name = "text_model.encoder.layers.1.mlp.fc1.weight";
    const stored = tensorOf(readSafetensors(join(folder, "text_encoder/model.safetensors")), name);
    const exact = formulaTensor("text_encoder", name, stored.shape);
    const largest = Math.max(...exact.map(Math.abs));
    expect(stored.dtype).toBe("BF16");
    expect(maxAbs(stored.data, exact)).toBeLessThanOrEqual(largest * 2 ** -8);
    expect(relativeL2(stored.data, exact)).toBeGreaterThan(0);
  });
});

describe("recorded outputs", () => {
  const names = ["golden/golden", "golden/extra", "golden/rescale", "wide/golden", "mini"];
  test.each(names)("%s is finite", (name) => {
    for (const [key, tensor] of readSafetensors(join(fixtures, `${name}.safetensors`))) {
      const size = tensor.shape.reduce((product, side) => product * side, 1);
      expect([key, tensor.data.length]).toEqual([key, size]);
      expect([key, tensor.data.every(Number.isFinite)]).toEqual([key, true]);
    }
  });

  test.each(["golden/golden", "wide/golden", "mini"])("%s has a image for euler", (name) => {
    const tensors = readSafetensors(join(fixtures, `${name}.safetensors`));
    const [, channels, height, width] = tensorOf(tensors, "run.euler.image").shape;
    const { runs } = JSON.parse(readFileSync(join(fixtures, `${name}.json`), "utf8"));
    expect(channels).toBe(3);
    expect([height, width]).toEqual([runs[0].height, runs[0].width]);
  });

  test("all fixtures together stay under 40 MB", () => {
    const bytes = readdirSync(fixtures, { recursive: true, encoding: "utf8" })
      .map((path) => statSync(join(fixtures, path)))
      .reduce((sum, stat) => sum + (stat.isFile() ? stat.size : 0), 0);
    expect(bytes).toBeLessThan(bytesMax);
  });
});
