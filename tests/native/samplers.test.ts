/**
 * Runs of the golden model by every sampler against diffusers (tests/fixtures/sampler-runs.*, made
 * by tests/reference/make_sampler_runs.py): two images in a batch, and the first of them alone. And
 * samplers of two evaluations per step on several ranks.
 */

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { everyNth } from "../../src/bench/support/references.ts";
import { readSafetensors } from "../../src/bench/support/safetensors.ts";
import { parseSchedulerConfig } from "../../src/models/config.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import type { GenerateRequest } from "../../src/pipeline/request.ts";
import { Pipeline } from "../../src/pipeline.ts";
import { samplerOfModel } from "../../src/schedule.ts";
import { schedulers, syncModes } from "../../src/settings/names.ts";
import { samplerRows } from "../../src/settings/samplers.ts";
import { relativeL2 } from "../support/compare.ts";
import { KeptPipelines } from "../support/kept-pipelines.ts";
import { measured } from "../support/measured.ts";

setDefaultTimeout(60_000);

interface Notes {
  side: number;
  seeds: number[];
  stride: number;
  runs: {
    name: string;
    scheduler: string;
    steps: number;
    config: Record<string, unknown>;
  }[];
}

const fixtures = join(import.meta.dir, "../fixtures");
const golden = join(fixtures, "golden/model");
const readJson = (path: string) => JSON.parse(readFileSync(path, "utf8"));
// Others of the same kind may be compared by hand.
const recorded = process.env.SAMPLER_RUNS ?? join(fixtures, "sampler-runs");
const notes: Notes = readJson(`${recorded}.json`);
const tensors = readSafetensors(`${recorded}.safetensors`);
const sdxl = readJson(join(golden, "scheduler/scheduler_config.json"));
const model = await openModelFolder(golden);
const usual = { prompt: "a red circle", negativePrompt: "blurry", wantLatents: true } as const;

/** One for each number of ranks. */
const pipelines = new KeptPipelines();
afterAll(() => pipelines.close());

function pipelineOf(rankCount: number): Promise<Pipeline> {
  return pipelines.of(rankCount, { model, devices: { device: "cpu", rankCount } });
}

async function latentsOf(rankCount: number, request: GenerateRequest): Promise<Float32Array> {
  const pipeline = await pipelineOf(rankCount);
  return (await pipeline.generate({ ...usual, ...request })).latents!;
}

describe("equal to diffusers", () => {
  test.each(notes.runs)("$name", async ({ name, scheduler, steps, config }) => {
    const json = { ...sdxl, clip_sample: false, ...config, _class_name: scheduler };
    const own = { ...model, scheduler: parseSchedulerConfig("scheduler_config.json", json) };
    expect(samplerOfModel(own.scheduler).replaced).toBe(false);
    await using pipeline = await Pipeline.open({ model: own, devices: { device: "cpu" } });
    const theirs = tensors.get(name)!.data;
    const request = { ...usual, width: notes.side, height: notes.side, stepCount: steps };
    const seeds = notes.seeds.map(BigInt);
    for (const count of [seeds.length, 1]) {
      const { latents } = await pipeline.generate({
        ...request,
        seeds: seeds.slice(0, count),
        batchSize: count,
      });
      const ours = everyNth(latents!, notes.stride);
      const error = relativeL2(ours, theirs.subarray(0, ours.length));
      expect(measured(`latents of ${name}`, error, 1e-4)).toBeLessThanOrEqual(1e-4);
    }
  });

  test("every sampler of diffusers but the ancestral Euler is there", () => {
    const named = notes.runs.map(({ name }) => name.replace(/_[a-z]+_\d+_(epsilon|v_pre.*)$/, ""));
    const theirs = schedulers.filter((name) => samplerRows[name].className !== null);
    expect(new Set(named)).toEqual(new Set(theirs.filter((name) => name !== "euler_a")));
  });
});

describe("on several ranks", () => {
  const size = { width: 64, height: 128, stepCount: 4, seeds: [5n], splitBatch: false };

  test.each([
    ...(["heun", "dpm2_a", "unipc", "dpmpp_2m_sde", "dpmpp_2s_a", "dpmpp_sde", "er_sde"] as const),
    ...(["seeds_2", "heunpp2", "euler_cfg_pp"] as const),
  ])("%s in full_sync is one rank", async (scheduler) => {
    const request = { ...size, scheduler, syncMode: "full_sync" } as const;
    const one = await latentsOf(1, request);
    for (const rankCount of [2, 4]) {
      expect(relativeL2(await latentsOf(rankCount, request), one)).toBeLessThanOrEqual(1e-5);
    }
  });

  test("pndm with Runge-Kutta steps in full_sync is one rank", async () => {
    const { solver } = model.scheduler;
    const scheduler = {
      ...model.scheduler,
      className: "PNDMScheduler",
      solver: { ...solver, skipPrkSteps: false },
    };
    const own = { ...model, scheduler };
    const latents: Float32Array[] = [];
    for (const rankCount of [1, 2, 4]) {
      const devices = { device: "cpu", rankCount } as const;
      await using pipeline = await Pipeline.open({ model: own, devices });
      const request = { ...usual, ...size, stepCount: 5, syncMode: "full_sync" } as const;
      latents.push((await pipeline.generate(request)).latents!);
    }
    for (const several of latents) {
      expect(relativeL2(several, latents[0]!)).toBeLessThanOrEqual(1e-5);
    }
  });

  test.each(syncModes)("two evaluations per step in %s, the same run to run", async (syncMode) => {
    for (const scheduler of ["heun", "dpm2_a", "dpmpp_sde"] as const) {
      const request = { ...size, scheduler, syncMode, warmupSteps: 1 } as const;
      const one = await latentsOf(1, request);
      const first = await latentsOf(2, request);
      expect(await latentsOf(2, request)).toEqual(first);
      const error = relativeL2(first, one);
      expect(error).toBeLessThanOrEqual(syncMode === "full_sync" ? 1e-5 : 0.5);
    }
  });
});
