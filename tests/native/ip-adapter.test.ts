/**
 * Images as prompts against diffusers (tests/fixtures/ip-adapter.*, made by
 * tests/reference/make_ip_adapter.py): plain and plus, several images, several adapters. On several
 * ranks, in batches, in a part of the steps, and with reused cross-attention.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { everyNth } from "../../src/bench/support/references.ts";
import { readSafetensors } from "../../src/bench/support/safetensors.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import type { GenerateRequest } from "../../src/pipeline.ts";
import { relativeL2 } from "../support/compare.ts";
import {
  type AdapterKind,
  ipImage,
  removeIpAdapters,
  writeIpAdapters,
} from "../support/ip-adapter-files.ts";
import { KeptPipelines } from "../support/kept-pipelines.ts";

setDefaultTimeout(60_000);

interface Notes {
  side: number;
  seed: number;
  stride: number;
  runs: {
    name: string;
    scheduler: string;
    adapters: AdapterKind[];
    images: number[][];
    scales: number[];
  }[];
}

const fixtures = join(import.meta.dir, "../fixtures");
const notes: Notes = JSON.parse(readFileSync(join(fixtures, "ip-adapter.json"), "utf8"));
const tensors = readSafetensors(join(fixtures, "ip-adapter.safetensors"));
const model = await openModelFolder(join(fixtures, "golden/model"));
const files = writeIpAdapters();
const size = { width: notes.side, height: notes.side };

const usual: GenerateRequest = {
  ...{ prompt: "a red circle", negativePrompt: "blurry", guidanceScale: 5, stepCount: 4 },
  ...{ wantLatents: true, syncMode: "full_sync", seeds: [BigInt(notes.seed)], ...size },
};
const both: GenerateRequest = {
  ...usual,
  ipAdapter: [files.plain, files.plus],
  ipImage: [ipImage(0), ipImage(1)],
  ipScale: [0.4, 0.8],
};

/** One for each number of ranks. */
const pipelines = new KeptPipelines();
afterAll(async () => {
  await pipelines.close();
  removeIpAdapters();
});

async function latentsOf(request: GenerateRequest, rankCount = 1): Promise<Float32Array> {
  const devices = { device: "cpu", rankCount } as const;
  const pipeline = await pipelines.of(rankCount, { model, devices, first: request });
  return (await pipeline.generate(request)).latents!;
}

describe("equal to diffusers", () => {
  test.each(notes.runs)("$name", async ({ name, scheduler, adapters, images, scales }) => {
    const latents = await latentsOf({
      ...usual,
      scheduler: scheduler as "euler",
      ipAdapter: adapters.map((kind) => files[kind]),
      ipImage: images.flat().map(ipImage),
      ipScale: scales,
    });
    const expected = tensors.get(name)!.data as Float32Array;
    expect(relativeL2(everyNth(latents, notes.stride), expected)).toBeLessThan(1e-5);
  });
});

test.each([
  [2, {}],
  [3, { splitBatch: false }],
  [4, { guidanceEnd: 0.5 }],
  [4, { guidanceScale: 1 }],
])("%d ranks give what one gives (%p)", async (rankCount, other) => {
  const request = { ...both, ...other, width: 32, height: 128, stepCount: 2 };
  const one = await latentsOf(request);
  expect(relativeL2(await latentsOf(request, rankCount), one)).toBeLessThan(1e-5);
});

test("an image of a batch is that alone", async () => {
  const request = { ...both, stepCount: 2 };
  const together = await latentsOf({ ...request, seeds: [1n, 2n], batchSize: 2 });
  const alone = await latentsOf({ ...request, seeds: [2n] });
  expect(relativeL2(together.slice(alone.length), alone)).toBeLessThan(1e-5);
});

test("an adapter of no step and one of scale 0 change nothing", async () => {
  const without = await latentsOf(usual);
  expect(await latentsOf({ ...both, ipScale: [0] })).toEqual(without);
  expect(await latentsOf({ ...both, ipStart: [0.9] })).toEqual(without);
  const early = await latentsOf({ ...both, ipEnd: [0.5] });
  expect(relativeL2(early, without)).toBeGreaterThan(1e-3);
  expect(relativeL2(early, await latentsOf(both))).toBeGreaterThan(1e-3);
});

test("cross-attention that is kept has the images in it", async () => {
  const gated = { ...both, stepCount: 6, crossGate: 0.5 };
  const without = { ...usual, stepCount: 6, crossGate: 0.5 };
  const difference = relativeL2(await latentsOf(gated), await latentsOf(without));
  expect(difference).toBeGreaterThan(1e-2);
});
