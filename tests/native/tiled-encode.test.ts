/**
 * Encoding in tiles: equal to diffusers' (tests/fixtures/tiled-encode.safetensors, made by
 * tests/reference/make_tiled_encode.py), with less memory than the whole.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { formulaInput, relativeL2From } from "../../src/bench/support/references.ts";
import { readSafetensors } from "../../src/bench/support/safetensors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { nativeModelOf } from "../../src/models/native-model.ts";
import { ModelParts } from "../../src/native/testing.ts";
import { estimate, type GenerateRequest, Pipeline, preparePipeline } from "../../src/pipeline.ts";
import { measured } from "../support/measured.ts";

const fixtures = join(import.meta.dir, "../fixtures");
const recorded = readSafetensors(join(fixtures, "tiled-encode.safetensors"));
const golden = await openModelFolder(join(fixtures, "golden/model"));
/** Tiles of 8 rows and columns of the latent: 64 pixels a side. */
const model = { ...golden, vae: { ...golden.vae, sampleSize: 64 } };
const tile = 8;

test.each([
  [96, 160],
  [160, 64],
])("%d x %d pixels are encoded as diffusers does", async (height, width) => {
  const parts = await ModelParts.open(nativeModelOf(model));
  try {
    const name = `${height}x${width}`;
    const image = formulaInput(`tiled_encode ${name}`, [1, 3, height, width], 1).data;
    const values = Float32Array.from(image);
    const [rows, columns] = [height / 8, width / 8];
    const tiled = await parts.encode(values, rows, columns, tile);
    const error = relativeL2From(recorded, name, tiled);
    expect(measured(`tiled encode ${name}`, error, 1e-4)).toBeLessThan(1e-4);
    // The seams are there, and no tiles where one holds all.
    const whole = await parts.encode(values, rows, columns);
    expect(relativeL2From(recorded, name, whole)).toBeGreaterThan(1e-3);
    expect(await parts.encode(values, rows, columns, 32)).toEqual(whole);
  } finally {
    await parts.close();
  }
});

const request: GenerateRequest = {
  ...{ prompt: "a red circle", seeds: [1n], width: 96, height: 160, stepCount: 2 },
  ...{ resize: "stretch", strength: 0.5 },
  image: { width: 96, height: 160, pixels: Uint8Array.from({ length: 3 * 96 * 160 }, (_, i) => i) },
};

test("an image to start from is encoded so, and the plan has its memory", async () => {
  const prepare = async (vaeTiling: boolean) =>
    await preparePipeline({
      ...{ model, devices: { device: "cpu" } },
      first: { ...request, vaeTiling, wantLatents: true },
    });
  const made: Float32Array[] = [];
  const bytes: number[] = [];
  for (const vaeTiling of [false, true]) {
    const prepared = await prepare(vaeTiling);
    bytes.push(estimate(prepared).passes[0]!.memory.stages.encode!);
    await using pipeline = await Pipeline.load(prepared);
    const { latents, ranks } = await pipeline.generate(prepared.request);
    made.push(latents!);
    expect(ranks[0]!.scratchBytes).toBe(estimate(prepared).passes[0]!.memory.scratch);
  }
  expect(bytes[1]!).toBeLessThan(0.5 * bytes[0]!);
  expect(made[1]).not.toEqual(made[0]);
});
