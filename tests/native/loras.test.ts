/**
 * LoRAs through the public API: they belong to a job, change between jobs, and leave no trace.
 */
import { afterAll, expect, test } from "bun:test";
import { copyFileSync, mkdtempSync, renameSync, rmSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { goldenModel } from "../../src/bench/support/golden-model.ts";
import { writeRandomLora } from "../../src/bench/support/random-lora.ts";
import { writeSingleFile } from "../../src/bench/support/single-file.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { openSingleFile } from "../../src/models/single-file.ts";
import {
  BasedXLError,
  type GenerateRequest,
  type LoraChoice,
  Pipeline,
} from "../../src/pipeline.ts";

const folder = mkdtempSync(join(tmpdir(), "basedxl-loras-"));
afterAll(() => rmSync(folder, { recursive: true }));

const model = await openModelFolder(goldenModel);
const attention = join(folder, "attention.safetensors");
const text = join(folder, "text.safetensors");
writeRandomLora(attention, model, /attn\d\.to_|conv1$/);
writeRandomLora(text, model, /self_attn|text_projection/);

const small = { width: 64, height: 64, stepCount: 1, scheduler: "euler", seeds: [3n] } as const;
const options = { model, devices: { device: "cpu" }, threadCount: 2 } as const;

/** The latents of one job, as text, for comparison to the bit. */
async function job(pipeline: Pipeline, request: Partial<GenerateRequest>): Promise<string> {
  const all = { prompt: "a house", ...small, ...request, wantLatents: true };
  const { latents } = await pipeline.generate(all);
  return Buffer.from(latents!.buffer).toString("base64");
}

async function refused(work: Promise<unknown>): Promise<BasedXLError> {
  const error = await work.then(() => null).catch((reason) => reason);
  expect(error).toBeInstanceOf(BasedXLError);
  return error;
}

test("50 changes in one pipeline: a set gives its bits again, and none the model's", async () => {
  await using pipeline = await Pipeline.open(options);
  const sets: LoraChoice[][] = [
    [],
    [{ file: attention, scale: 0.8 }],
    [{ file: attention, scale: -0.5 }, { file: text }],
    [{ file: text, scale: 0, textScale: 1 }],
    [
      { file: attention, scale: 0.8 },
      { file: attention, scale: -0.8 },
    ],
  ];
  const known = new Map<number, string>();
  for (let change = 0; change < 50; change++) {
    const set = (change * 3) % sets.length;
    const latents = await job(pipeline, { loras: sets[set]! });
    expect(latents).toBe(known.get(set) ?? latents);
    known.set(set, latents);
  }
  // Scales that add up to nothing are no LoRA; all others differ.
  expect(known.get(4)).toBe(known.get(0)!);
  expect(new Set(known.values()).size).toBe(sets.length - 1);
}, 60_000);

test("a tag in the prompt is the setting, for its image alone", async () => {
  await using pipeline = await Pipeline.open(options);
  const plain = await job(pipeline, {});
  const set = await job(pipeline, { loras: [{ file: attention, scale: 0.5, textScale: 1 }] });
  const tagged = await job(pipeline, { prompt: `a house<lora:${attention}:1:0.5>` });
  expect(tagged).toBe(set);
  const seeds = [3n, 3n];
  const prompt = ["a house", `a house<lora:${attention}:1:0.5>`];
  const { latents, warnings } = await pipeline.generate({
    ...{ prompt, ...small, seeds, batchSize: 2, wantLatents: true },
  });
  const half = latents!.length / 2;
  const bytes = (part: Float32Array) => Buffer.from(part.slice().buffer).toString("base64");
  expect(bytes(latents!.subarray(0, half))).toBe(plain);
  expect(bytes(latents!.subarray(half))).toBe(set);
  expect(warnings).toEqual([]);
}, 60_000);

test("a file that was replaced between two jobs is read again", async () => {
  await using pipeline = await Pipeline.open(options);
  const file = join(folder, "replaced.safetensors");
  const latents: string[] = [];
  for (const source of [attention, text, attention]) {
    copyFileSync(source, `${file}.new`);
    renameSync(`${file}.new`, file);
    latents.push(await job(pipeline, { loras: [{ file }] }));
  }
  expect(latents[1]).not.toBe(latents[0]!);
  expect(latents[2]).toBe(latents[0]!);
}, 60_000);

test("a file that is missing or broken fails its own job alone", async () => {
  await using pipeline = await Pipeline.open(options);
  const before = await job(pipeline, {});
  const missing = join(folder, "missing.safetensors");
  const { message } = await refused(job(pipeline, { loras: [{ file: missing }] }));
  expect(message).toContain(missing);
  await refused(job(pipeline, { loras: [{ file: goldenModel }] }));
  const cut = join(folder, "cut.safetensors");
  copyFileSync(attention, cut);
  truncateSync(cut, 20_000);
  expect((await refused(job(pipeline, { loras: [{ file: cut }] }))).message).toContain("cut off");
  expect(await job(pipeline, {})).toBe(before);
}, 60_000);

test("over a checkpoint in one file they give the bits of its folder", async () => {
  const path = join(folder, "golden.safetensors");
  writeSingleFile(model, path);
  const single = await openSingleFile(path, { config: goldenModel });
  // Text encoders: thirds of in_proj, and the transposed projection.
  const loras = [{ file: attention, scale: 0.8 }, { file: text }];
  const latents: string[] = [];
  for (const each of [model, single]) {
    await using pipeline = await Pipeline.open({ ...options, model: each });
    latents.push(await job(pipeline, { loras }), await job(pipeline, {}));
  }
  expect(latents.slice(2)).toEqual(latents.slice(0, 2));
  expect(latents[0]).not.toBe(latents[1]!);
}, 60_000);
