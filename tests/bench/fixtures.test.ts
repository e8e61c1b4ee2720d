/**
 * Checks of the fixtures that the parity tests rely on: the formula weights are those of the
 * recorded outputs, all recorded values are finite, and the tracked data stays small.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  formulaTensor,
  readWeightsList,
  writeWideModel,
} from "../../src/bench/support/formula-weights.ts";
import { goldenModel, writeGoldenModel } from "../../src/bench/support/golden-model.ts";
import {
  everyNth,
  formulaInput,
  keptOf,
  relativeL2From,
} from "../../src/bench/support/references.ts";
import { readSafetensors, type Tensor, tensorOf } from "../../src/bench/support/safetensors.ts";
import { maxAbs, relativeL2 } from "../support/compare.ts";

const root = join(import.meta.dir, "../..");
const fixtures = join(root, "tests/fixtures");
/** Source code and documents grow with the product; weights, references and images must not. */
const source = /\.(tsx?|css|html|zig|cu|cuh|h|py|md|sh)$/;
/** Of the repository's other files, all together. */
const dataBytesMax = 21_500_000;

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

describe("the golden model's weights", () => {
  test("are written from two seeds, whole, and not again", () => {
    const folder = mkdtempSync(join(tmpdir(), "basedxl-golden-"));
    try {
      cpSync(goldenModel, folder, { recursive: true });
      const path = join(folder, "vae/diffusion_pytorch_model.safetensors");
      const made = readFileSync(path);
      rmSync(path);
      writeGoldenModel(folder);
      expect(readFileSync(path).equals(made)).toBe(true);
      const before = statSync(path).mtimeMs;
      writeGoldenModel(folder);
      expect(statSync(path).mtimeMs).toBe(before);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test("have the recorded checksums", () => {
    const list = JSON.parse(readFileSync(join(fixtures, "golden/weights.json"), "utf8"));
    expect(list.files).toHaveLength(4);
    for (const { path, sha256 } of list.files) {
      const bytes = readFileSync(join(goldenModel, path));
      expect([path, createHash("sha256").update(bytes).digest("hex")]).toEqual([path, sha256]);
    }
  });
});

describe("recorded outputs", () => {
  const names = ["golden", "extra", "rescale", "tiling"].map((name) => `golden/${name}`);
  names.push("wide/golden", "mini", "patch_parallel/patch_parallel");
  test.each(names)("%s is finite", (name) => {
    for (const [key, tensor] of readSafetensors(join(fixtures, `${name}.safetensors`))) {
      const size = tensor.shape.reduce((product, side) => product * side, 1);
      expect([key, tensor.data.length]).toEqual([key, size]);
      expect([key, tensor.data.every(Number.isFinite)]).toEqual([key, true]);
    }
  });

  test.each(["golden/golden", "wide/golden", "mini"])("%s has an image for euler", (name) => {
    const tensors = readSafetensors(join(fixtures, `${name}.safetensors`));
    const { data, stride } = keptOf(tensors, "run.euler.image");
    const { runs } = JSON.parse(readFileSync(join(fixtures, `${name}.json`), "utf8"));
    const values = 3 * runs[0].height * runs[0].width;
    expect(data).toHaveLength(Math.ceil(values / stride));
    // The columns of kept elements change from row to row.
    expect(runs[0].width % stride).toBeGreaterThan(0);
  });

  test("a wrong element is seen where it is kept, a wrong block wherever it lies", () => {
    const values = formulaInput("any", [1, 4, 32, 32], 1).data;
    const blocks = Array.from({ length: 4 }, (_, i) => values.subarray(i * 1024, (i + 1) * 1024));
    const norm = (block: Float32Array) => Math.sqrt(block.reduce((sum, x) => sum + x * x, 0));
    const tensors = new Map([
      ["a%11", tensor(everyNth(values, 11))],
      ["a#1024", tensor(Float32Array.from(blocks, norm))],
    ]);
    expect(relativeL2From(tensors, "a", values)).toBeLessThan(1e-7);
    for (const wrong of [
      values.with(22, 9),
      values.map((x, i) => (i % 11 === 0 ? x : 1.001 * x)),
      values.map((x, i) => (i < 1024 && i % 11 !== 0 ? 0 : x)),
    ]) {
      expect(relativeL2From(tensors, "a", wrong)).toBeGreaterThan(5e-4);
    }
    expect(relativeL2From(tensors, "a", values.with(22, Number.NaN))).toBeNaN();
    expect(() => relativeL2From(tensors, "a", values.subarray(0, 4000))).toThrow("elements");
    expect(() => relativeL2From(tensors, "b", values)).toThrow("no tensor b among a%11, a#1024");
  });

  test(`tracked data stays under ${dataBytesMax / 1e6} MB`, () => {
    const listed = Bun.spawnSync(["git", "ls-files", "-z"], { cwd: root });
    // A source archive has no list of files.
    if (listed.exitCode !== 0) return;
    const paths = listed.stdout.toString().split("\0").filter(Boolean);
    const bytes = paths
      .filter((path) => !source.test(path))
      .map((path) => statSync(join(root, path), { throwIfNoEntry: false })?.size ?? 0)
      .reduce((sum, size) => sum + size, 0);
    expect(paths.length).toBeGreaterThan(100);
    expect(bytes).toBeLessThanOrEqual(dataBytesMax);
  });
});

function tensor(data: Float32Array): Tensor {
  return { dtype: "F32", shape: [data.length], data };
}
