/**
 * Estimates of requests before anything is loaded: the bytes are those that the run then takes,
 * each network and pass is there, and one that is not used costs nothing.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { openOptionsOf } from "../../src/pipeline/open-options.ts";
import { checkSession } from "../../src/pipeline/session.ts";
import {
  type Estimate,
  estimate,
  type GenerateRequest,
  Pipeline,
  type PipelineOptions,
  type PreparedPipeline,
  preparePipeline,
} from "../../src/pipeline.ts";
import { controlHint } from "../support/control-hint.ts";
import { controlFolder, removeControls } from "../support/control-networks.ts";
import { ipImage, removeIpAdapters, writeIpAdapters } from "../support/ip-adapter-files.ts";
import { refinerFolder } from "../support/refiner-model.ts";
import { refusal } from "../support/refusal.ts";
import { removeUpscalers, writeUpscaler } from "../support/upscaler-files.ts";

// Runs on cores that may be busy.
setDefaultTimeout(60_000);

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const usual: GenerateRequest = {
  ...{ prompt: "a red circle", seeds: [1n], width: 64, height: 128 },
  ...{ stepCount: 3, warmupSteps: 0, extrapolateHalos: true },
};
const controlled: GenerateRequest = {
  controlnet: [controlFolder("plain")],
  controlImage: [controlHint(64, 128)],
};
const shown: GenerateRequest = { ipAdapter: [writeIpAdapters().plain], ipImage: [ipImage(0)] };

afterAll(() => {
  removeControls();
  removeIpAdapters();
  removeUpscalers();
});

const rates = {
  ...{ flopsPerSecond: 1e11, bytesPerSecond: 1e10, launchSeconds: 0 },
  source: "measured",
} as const;

async function prepare(request: GenerateRequest, { rankCount = 1, ...more } = {}) {
  const devices = { device: "cpu", rankCount } as const;
  return await preparePipeline({ model, devices, first: { ...usual, ...request }, ...more });
}

async function estimateOf(request: GenerateRequest, more?: object): Promise<Estimate> {
  return estimate(await prepare(request, more), rates);
}

/** Bytes of the arenas of all ranks. */
async function scratchOf(prepared: PreparedPipeline, options: Partial<PipelineOptions> = {}) {
  await using pipeline = await Pipeline.load(prepared, options);
  const { ranks } = await pipeline.generate(prepared.request);
  return ranks.map(({ scratchBytes }) => scratchBytes);
}

const upscaled = { hires: 2, hiresStrength: 0.5, hiresUpscaler: writeUpscaler("rrdbnet_x2") };

test.each([
  ["an image", {}, 1],
  ["three ranks", {}, 3],
  [
    "an image to start from, and a mask",
    { image: ipImage(0), mask: ipImage(0), resize: "cover" },
    1,
  ],
  ["a ControlNet", controlled, 1],
  ["a ControlNet on two ranks", controlled, 2],
  ["an IP-Adapter", shown, 1],
] as [string, GenerateRequest, number][])("the bytes of %s are the run's", async (_, ...args) => {
  const [request, rankCount] = args;
  const prepared = await prepare(request, { rankCount });
  const { passes } = estimate(prepared, rates);
  const used = await scratchOf(prepared);
  expect(used.reduce((sum, bytes) => sum + bytes, 0)).toBe(passes[0]!.memory.scratch);
});

test("passes and networks have rows of their own", async () => {
  const { passes, seconds } = await estimateOf({ ...controlled, ...shown, ...upscaled });
  expect(passes.map(({ name, steps, runs }) => [name, steps, runs])).toEqual([
    ["image", 3, 1],
    ["upscale", 1, 1],
    ["second", 1, 1],
  ]);
  const [image, upscale, second] = passes;
  const names = image!.parts.filter(({ inStep }) => inStep).map(({ network }) => network);
  expect(names.sort()).toEqual(["ControlNet plain", "UNet"]);
  const once = image!.parts.filter((part) => !part.inStep).map(({ network }) => network);
  expect(new Set(once)).toEqual(
    new Set([
      ...["text encoders", "UNet", "VAE decoder"],
      ...["ControlNet plain", "IP-Adapter plain", "image encoder image_encoder"],
    ]),
  );
  expect(second!.parts.some(({ network }) => network === "VAE encoder")).toBe(true);
  expect(upscale!.parts.map(({ network }) => network)).toEqual(["upscaler rrdbnet_x2"]);
  const total = passes.reduce((sum, pass) => sum + pass.seconds!, 0);
  expect(seconds).toBeCloseTo(total, 9);
});

test("a refiner has its pass, and the model before it decodes nothing", async () => {
  const refiner = refinerFolder();
  const { passes } = await estimateOf({ denoisingEnd: 0.5, stepCount: 6 }, { refiner });
  expect(passes.map(({ name }) => name)).toEqual(["image", "refiner"]);
  const decodes = passes.map(({ parts }) => parts.some(({ stage }) => stage === "decode"));
  expect(decodes).toEqual([false, true]);
  expect(passes.reduce((sum, { steps }) => sum + steps, 0)).toBe(6);
});

describe("a network that is not used costs nothing", () => {
  test.each([
    ["a ControlNet of scale 0", { ...controlled, controlScale: [0] }],
    ["a ControlNet without a step", { ...controlled, controlStart: [0.9] }],
    ["an IP-Adapter of scale 0", { ...shown, ipScale: [0] }],
    ["an IP-Adapter without a step", { ...shown, ipStart: [0.9] }],
  ] as [string, GenerateRequest][])("%s: bytes and operations", async (_, request) => {
    const [{ passes }, without] = [await estimateOf(request), await estimateOf({})];
    expect(passes).toEqual(without.passes);
  });

  test("after a job that used it: bytes and result", async () => {
    await using pipeline = await Pipeline.load(await prepare({}));
    const run = async (request: GenerateRequest) => {
      const job = { ...usual, ...request, wantLatents: true };
      const { ranks, latents } = await pipeline.generate(job);
      return { bytes: ranks[0]!.scratchBytes, latents };
    };
    const before = await run({});
    const during = await run({ ...controlled, ...shown });
    expect(during.bytes).toBeGreaterThan(before.bytes);
    expect(await run({})).toEqual(before);
  });
});

describe("the check before loading", () => {
  test.each([
    ["an image", {}],
    ["a second pass", { ...upscaled, hiresUpscaler: "latent" }],
    ["an upscaler", upscaled],
  ] as [string, GenerateRequest][])(
    "of %s is for the bytes of the estimate",
    async (_, request) => {
      const prepared = await prepare(request);
      const options = openOptionsOf(prepared);
      expect(await checkSession(options, 0)).toBe(estimate(prepared, rates).memoryBytes);
      // Beside another session of a PB.
      const refused = await refusal(() => checkSession(options, 2 ** 50), "no-memory");
      expect(refused).toMatch(/^The image needs 10485\d\d\.\d\d GiB of free memory/);
    },
  );
});

test("time goes by steps, and without guidance by branches", async () => {
  const unetOf = async (request: GenerateRequest) => {
    const { passes } = await estimateOf(request);
    const part = passes[0]!.parts.find(({ network, inStep }) => network === "UNet" && inStep)!;
    return part.count * part.seconds!;
  };
  const usualTime = await unetOf({ stepCount: 4 });
  expect((await unetOf({ stepCount: 8 })) / usualTime).toBeCloseTo(2, 6);
  // Half of the steps with one branch of two.
  expect((await unetOf({ stepCount: 4, guidanceEnd: 0.5 })) / usualTime).toBeCloseTo(0.75, 6);
});
