/**
 * Adapters of every format against weights that PyTorch has merged and rounded to the file's f16:
 * images of 12 steps, from files to latents, with what the program itself reads of the files.
 */

import { describe, expect, test } from "bun:test";
import { adaptersOf, LoraPlanner } from "../../src/adapters/plan.ts";
import { goldenModel } from "../../src/bench/support/golden-model.ts";
import { relativeL2From } from "../../src/bench/support/references.ts";
import { readSafetensors } from "../../src/bench/support/safetensors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { drawLatents } from "../support/draw.ts";
import { measured } from "../support/measured.ts";
import {
  readApplied,
  recordedPath,
  writeReferenceAdapters,
} from "../support/reference-adapters.ts";

const model = await openModelFolder(goldenModel);
const paths = writeReferenceAdapters();
const recorded = readSafetensors(recordedPath);
const { run, images } = readApplied();

function latentsWith(files: { name: string; scale: number }[]): Promise<Float32Array> {
  const planner = new LoraPlanner(model, (name) => paths.get(name)!);
  const loras = planner.plan(files.map(({ name, scale }) => ({ file: name, scale })));
  expect(loras.flatMap(({ file }) => file.unmatched)).toEqual([]);
  return drawLatents({
    model,
    width: 64,
    height: 64,
    threadCount: 2,
    prompt: run.prompt,
    negative: run.negative,
    guidanceScale: run.guidance,
    seeds: [BigInt(run.seed)],
    stepCount: run.steps,
    adapters: adaptersOf(loras),
  });
}

describe("latents after 12 steps are PyTorch's", () => {
  test("without adapters", async () => {
    expect(relativeL2From(recorded, "plain", await latentsWith([]))).toBeLessThanOrEqual(1e-5);
  });

  test.each(images)("with $name", async ({ name, files }) => {
    const error = relativeL2From(recorded, name, await latentsWith(files));
    expect(measured(`latents with ${name}`, error, 1e-5)).toBeLessThanOrEqual(1e-5);
    expect(relativeL2From(recorded, name, recorded.get("plain")!.data)).toBeGreaterThan(3e-3);
  });
});
