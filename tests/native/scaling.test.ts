/**
 * The formula for what ranks exchange: against the figures that DistriFusion's paper prints,
 * against published figures of SDXL, and against the bytes that ranks count in a run.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import {
  bytesCpu,
  bytesOf,
  layerBytes,
  receivedElements,
  sdxl,
  stepMs,
  unetSizes,
} from "../../src/bench/formula.ts";
import { formulaRows } from "../../src/bench/formula-table.ts";
import { generateImage } from "../../src/bench/generation.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import type { Model } from "../../src/models/model.ts";
import { layoutOf } from "../../src/pipeline/layout.ts";
import { openSession, type Session } from "../../src/pipeline/session.ts";
import { makeSchedule } from "../../src/schedule.ts";

const eightPatches = {
  patches: new Array<number>(8).fill(1),
  patch: 3,
  branchGroups: 1,
  branches: 2,
  halos: "all-gather",
} as const;

describe("SDXL from its config", () => {
  const at1024 = unetSizes(sdxl, 128, 128);
  const at3840 = unetSizes(sdxl, 480, 480);

  test("DistriFusion's volume: 0.424 G elements at 1024x1024, 5.376 G at 3840x3840", () => {
    const received = (sizes: typeof at1024) => {
      const { keysValues, halos } = receivedElements(sizes, eightPatches);
      return (keysValues + halos) / 1e9;
    };
    expect(received(at1024)).toBeCloseTo(0.424, 3);
    expect(received(at3840)).toBeCloseTo(5.376, 3);
  });

  test("all keys and values of two branches are 839 MB in 16-bit", () => {
    expect((2 * 2 * at1024.keysValues) / 1e6).toBeCloseTo(838.9, 1);
  });

  test("halo rows are 2.048 M elements, and 4 % less before upsampling", () => {
    expect(at1024.haloRowUpsampled).toBe(2_048_000);
    expect(at1024.haloRow).toBe(1_966_080);
  });

  test("46 norms have 5888 statistics in two branches", () => {
    expect(2 * at1024.statistics).toBe(5888);
  });

  test("a step of two branches is 6.761 T multiplications, as DistriFusion's 338 T in 50", () => {
    const total = (sizes: typeof at1024) =>
      Object.values(sizes.macs).reduce((sum, macs) => sum + macs, 0) / 1e12;
    expect(2 * total(at1024)).toBeCloseTo(6.761, 2);
    expect(100 * total(at1024)).toBeCloseTo(338, 0);
    expect(total(at3840)).toBeCloseTo(116.2, 1);
  });

  test("the table: 8 GPUs at 1024x1024, without and with split branches", () => {
    const rows = formulaRows({
      unet: sdxl,
      vaeFactor: 8,
      sizes: [{ width: 1024, height: 1024 }],
      rankCounts: [8],
      guidance: true,
    });
    const figures = rows.map(({ layout, received, allGatherHalos, computeMs }) => ({
      layout,
      keysValuesMb: Math.round(received.keysValues / 1e6),
      halosMb: Math.round(received.halos / 1e6),
      allGatherMb: Math.round(allGatherHalos / 1e6),
      computeMs: Number(computeMs["790 TFLOP/s"]?.toFixed(1)),
    }));
    expect(figures).toEqual([
      { layout: "8 patches", keysValuesMb: 734, halosMb: 16, allGatherMb: 115, computeMs: 2.1 },
      {
        layout: "2 branches x 4 patches",
        keysValuesMb: 315,
        halosMb: 8,
        allGatherMb: 25,
        computeMs: 2.1,
      },
    ]);
  });
});

test("a step's time: the longer of the two and the gathering, or all one after the other", () => {
  const received = { keysValues: 6e6, halos: 1e6, statistics: 1e6, gather: 2e6 };
  const step = { received, bytesPerSecond: 1e9 };
  expect(layerBytes(received)).toBe(8e6);
  expect(stepMs({ ...step, computeMs: 20, synchronous: false })).toBeCloseTo(22, 9);
  expect(stepMs({ ...step, computeMs: 5, synchronous: false })).toBeCloseTo(10, 9);
  expect(stepMs({ ...step, computeMs: 5, synchronous: true })).toBeCloseTo(15, 9);
});

describe("counted bytes equal the formula", () => {
  const width = 160;
  const height = 256;
  const stepCount = 4;
  let model: Model;
  const sessions: Session[] = [];
  beforeAll(async () => {
    model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
  });
  afterAll(() => {
    for (const session of sessions) session.close();
  });

  test.each([
    // The first is uneven: 12 + 12 + 8 rows of the latent.
    { rankCount: 3, splitBatch: false, guidanceScale: 5, syncMode: "full_sync" },
    { rankCount: 3, splitBatch: false, guidanceScale: 5, syncMode: "corrected_async_gn" },
    { rankCount: 4, splitBatch: true, guidanceScale: 5, syncMode: "corrected_async_gn" },
    { rankCount: 2, splitBatch: false, guidanceScale: 1, syncMode: "corrected_async_gn" },
  ] as const)("%j", async ({ rankCount, splitBatch, guidanceScale, syncMode }) => {
    const guidance = guidanceScale > 1;
    const session = await openSession({
      model,
      rankCount,
      threadCount: 0,
      width,
      height,
      guidance,
      splitBatch,
      imageCount: 1,
    });
    sessions.push(session);
    const schedule = makeSchedule("euler", model.scheduler, { stepCount });
    const generation = { model, width, height, guidanceScale, schedule, stepCount };
    const example = { prompt: "a red house", seed: 1n };
    const how = { syncMode, warmupSteps: 1, splitBatch };
    const { ranks } = await generateImage(session, generation, example, how);

    const latentRows = height / model.vaeFactor;
    const rowUnit = model.sizeMultiple / model.vaeFactor;
    const { patches, branchGroups } = layoutOf({
      rankCount,
      guidance,
      splitBatch,
      latentRows,
      rowUnit,
    });
    const sizes = unetSizes(model.unet, latentRows, width / model.vaeFactor);
    const expected = ranks.map((_, rank) => {
      const patch = rank % patches.length;
      const branches = guidance ? 2 : 1;
      const share = { patches, patch, branchGroups, branches, halos: "neighbours" } as const;
      return bytesOf(receivedElements(sizes, share), bytesCpu);
    });
    const counted = ranks.map((rank) => ({
      keysValues: rank.keysValuesBytes / stepCount,
      halos: rank.haloBytes / stepCount,
      statistics: rank.statisticsBytes / stepCount,
      gather: rank.gatherBytes / stepCount,
    }));
    expect(counted).toEqual(expected);
  });
});
