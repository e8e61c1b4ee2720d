/**
 * `bench gpu` without a GPU: predictions against closed forms and known sizes, the evaluation of
 * patch times and measured figures, and a short end-to-end run on the emulated driver.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { unetSizes } from "../../src/bench/formula.ts";
import { run } from "../../src/bench/gpu.ts";
import { type Bar, barsOf, barTable } from "../../src/bench/gpu-bars.ts";
import type { ModelRow } from "../../src/bench/gpu-models.ts";
import { jobsOf, type OperationRow, operationTable, summedSteps } from "../../src/bench/gpu-ops.ts";
import { readPatchFile } from "../../src/bench/gpu-patches.ts";
import { memoryBar, predict } from "../../src/bench/gpu-predict.ts";
import {
  floorMs,
  kindOf,
  nameOf,
  planFor,
  splitCrossAttention,
  withModel,
} from "../../src/bench/gpu-work.ts";
import { run as runScaling } from "../../src/bench/scaling.ts";
import { predictPatches } from "../../src/bench/scaling-patches.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import type { Model } from "../../src/models/model.ts";
import { probeDevice } from "../../src/native/device-info.ts";
import type { PlannedOperation } from "../../src/native/plan.ts";
import "../support/emulator.ts";

const golden = join(import.meta.dir, "../fixtures/golden/model");
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "basedxl-bench-gpu-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const flopsOf = (entries: readonly PlannedOperation[]) =>
  entries.reduce((sum, { cost, count }) => sum + count * cost.flops, 0);

describe("the plan of the small model against closed forms", () => {
  const size = { width: 160, height: 256 };
  let model: Model;
  beforeAll(async () => {
    model = await openModelFolder(golden);
  });

  const stepOf = (rankCount: number, splitBatch = false) =>
    planFor({ model, ...size, rankCount, splitBatch, dtype: "f16" }).passes[0]!.ranks.map(
      ({ operations }) => operations.filter(({ place }) => place.stage === "denoise"),
    );

  test.each([
    { rankCount: 1, splitBatch: false },
    { rankCount: 3, splitBatch: false },
    { rankCount: 4, splitBatch: true },
  ])("attention of $rankCount ranks together is the formula's", ({ rankCount, splitBatch }) => {
    const { macs } = unetSizes(model.unet, 32, 20);
    const all = stepOf(rankCount, splitBatch)
      .flat()
      .flatMap((entry) =>
        entry.operation.op === "cross_attention" ? splitCrossAttention(entry) : [entry],
      );
    const of = (kind: string) => flopsOf(all.filter(({ operation }) => kindOf(operation) === kind));
    // Two branches, and two FLOP to a multiplication with an addition.
    expect(of("self-attention")).toBe(4 * macs.selfAttention);
    expect(of("cross-attention")).toBe(4 * macs.crossAttention);
  });

  test("convolutions of one rank are the formula's but for the shortcuts, which are linear", () => {
    const { macs } = unetSizes(model.unet, 32, 20);
    const convolutions = stepOf(1)
      .flat()
      .filter(({ operation }) => operation.kernel === 3);
    const { blockOutChannels: c } = model.unet;
    const last = c.length - 1;
    const at = (level: number) => c[Math.min(last, Math.max(0, level))]!;
    let shortcuts = 0;
    for (let level = 0; level <= last; level++) {
      const positions = (32 * 20) / 4 ** level;
      if (at(level - 1) !== at(level)) shortcuts += at(level - 1) * at(level) * positions;
      for (let i = 0; i <= model.unet.layersPerBlock[level]!; i++) {
        const below = i === 0 ? at(level + 1) : at(level);
        const skip = i === model.unet.layersPerBlock[level] ? at(level - 1) : at(level);
        shortcuts += (below + skip) * at(level) * positions;
      }
    }
    expect(flopsOf(convolutions)).toBe(4 * (macs.convolution - shortcuts));
  });

  test("a linear layer's own numbers", () => {
    const entry = stepOf(1)
      .flat()
      .find(({ operation }) => operation.op === "linear" && operation.residual)!;
    const { batch, rows, width, in: inner, out } = entry.operation;
    const m = batch * rows * width;
    expect(entry.cost.flops).toBe(2 * m * inner * out);
    // Input, weight, residual and result, in 16 bits.
    expect(entry.cost.bytes).toBe(2 * (m * inner + inner * out + 2 * m * out));
    expect(nameOf(entry.operation)).toBe(`linear ${m} x ${inner} x ${out} + residual`);
    const flat = { flopsPerSecond: entry.cost.flops, bytesPerSecond: entry.cost.bytes / 2 };
    expect(floorMs(entry, flat)).toBe(2000);
  });

  test("what is timed is the graph's own, patch by patch", () => {
    const jobs = jobsOf(model, 128, [1, 2], "f16");
    const ops = new Set(jobs.map(({ entry }) => entry.operation.op));
    for (const op of [
      "linear",
      "conv2d",
      "attention",
      "group_norm_stats",
      "layer_norm",
      "linear_geglu",
    ]) {
      expect(ops).toContain(op);
    }
    const halos = (patches: number) =>
      jobs.some((job) => job.patches === patches && job.entry.operation.halos > 0);
    expect([halos(1), halos(2)]).toEqual([false, true]);
    expect(jobs.filter(({ part }) => part === "VAE").every(({ patches }) => patches === 1)).toBe(
      true,
    );
  });
});

describe("SDXL's own sizes", () => {
  test("parameters, FLOP and memory", async () => {
    await withModel(undefined, async (model) => {
      const rows = predict({ model, dtype: "f16", sides: [1024], patches: [1, 8] });
      const [alone, eighth] = rows;
      // UNet, VAE, both text encoders: the published counts.
      const parameters = 2_567_463_684 + 83_653_863 + 123_060_480 + 694_659_840;
      const padding = alone!.memory.weights - 2 * parameters;
      expect(padding).toBeGreaterThanOrEqual(0);
      expect(padding).toBeLessThan(1e6);
      expect(alone!.memory.total).toBeLessThanOrEqual(memoryBar);
      // 2 x 6.761 T multiplications, of which the prompt's keys and values come once per prompt.
      expect(alone!.step.all.flops / 1e12).toBeCloseTo(13.42, 2);
      expect(alone!.decode.all.flops / 1e12).toBeCloseTo(10.47, 2);
      expect(eighth!.step.all.flops / alone!.step.all.flops).toBeCloseTo(1 / 8, 2);
      // The keys and values of the other patches: 7/8 of 839 MB, and this patch's own.
      expect(eighth!.memory.exchange / 1e6).toBeGreaterThan(839);
      const work = { model, dtype: "f16", sides: [1024], patches: [1], int8: true } as const;
      const [int8] = predict(work);
      expect(int8!.step.all.flops).toBe(alone!.step.all.flops);
      expect(int8!.memory.weights).toBeLessThan(0.75 * alone!.memory.weights);
      expect(int8!.step.ms.H200!).toBeLessThan(0.9 * alone!.step.ms.H200!);
    });
  });
});

describe("tables", () => {
  const operation: OperationRow = {
    patches: 1,
    part: "UNet",
    kind: "self-attention",
    name: "attention",
    count: 10,
    ms: 0.5,
    peerMs: 0.6,
    ratio: 1.2,
    cudnnMs: 0.44,
    perSecond: 5e14,
    isProduct: true,
    share: 0.63,
    attention: { tokens: 4096, headSize: 64 },
  };
  const norm: OperationRow = {
    ...operation,
    kind: "layer norms",
    name: "layer norm",
    ms: 0.01,
    perSecond: 3.2e12,
    isProduct: false,
    share: 0.78,
    attention: null,
  };
  const model: ModelRow = {
    variant: "f16",
    side: 1024,
    steps: 30,
    stepMs: 26,
    textMs: 5,
    decodeMs: 41,
    imageMs: 900,
    deviceBytes: 9e9,
    plannedBytes: 8.5e9,
    measuredBytes: 8.6e9,
  };
  const judged = (bars: Bar[]) => bars.map(({ isMet }) => isMet);

  test("every bar is judged by its own figure", () => {
    const peers = [{ what: "unet", side: 1024, compile: "reduce-overhead", ms: 39 }] as const;
    const bars = barsOf({ operations: [operation, norm], models: [model], peers }, false);
    expect(judged(bars)).toEqual([true, false, true, false, true, true, false, false, true]);
    expect(barTable(bars)).toContain("0.88 x");
  });

  test("nothing is judged that was not measured, or was emulated", () => {
    const nothing = barsOf({ operations: [], models: [], peers: [] }, false);
    expect(judged(nothing).every((isMet) => isMet === null)).toBe(true);
    const emulated = barsOf({ operations: [operation], models: [model], peers: [] }, true);
    expect(judged(emulated).every((isMet) => isMet === null)).toBe(true);
  });

  test("operations in microseconds, and added up", () => {
    expect(operationTable([operation])).toContain("| 500.0 |");
    expect(summedSteps([operation, norm, { ...norm, patches: 2 }])).toEqual([
      { patches: 1, ms: 5.1 },
      { patches: 2, ms: 0.1 },
    ]);
  });
});

test("patches alone become a prediction for several GPUs", async () => {
  const model = await openModelFolder(golden);
  const row = { side: 64, patch: 0, decodeMs: 40 };
  const predictions = predictPatches({
    gpu: "a GPU",
    isEmulated: false,
    model: "golden",
    dtype: "f16",
    unet: model.unet,
    vaeFactor: model.vaeFactor,
    rows: [
      { ...row, ranks: 1, branchGroups: 1, patches: [8], stepMs: 30 },
      { ...row, ranks: 2, branchGroups: 1, patches: [4, 4], stepMs: 20 },
      { ...row, ranks: 2, branchGroups: 2, patches: [8], stepMs: 15 },
    ],
  });
  expect(predictions.map(({ layout }) => layout)).toEqual(["alone", "2 patches", "2 branches"]);
  expect(predictions.map(({ efficiency }) => efficiency)).toEqual([1, 0.75, 1]);
  const [alone, patches, branches] = predictions;
  expect(alone!.imageMs.NVLink).toBeCloseTo(50 * 30 + 40, 1);
  // Transfers of so small a model hide: the gathering of outputs alone is left.
  expect(patches!.asyncMs["PCIe 5"]!).toBeGreaterThan(20);
  expect(patches!.asyncMs["PCIe 5"]!).toBeLessThan(20.1);
  expect(patches!.syncMs["PCIe 5"]!).toBeGreaterThan(patches!.asyncMs["PCIe 5"]!);
  expect(branches!.received.keysValues).toBe(0);
});

describe("flags", () => {
  test.each([
    [["--device", "cpu"], "--device takes cuda, cuda-emulated"],
    [["--only", "nothing"], "--only takes ops, models, patches, peer"],
    [["--predict", "--sides", "100"], "--sides takes multiples of 32, not 100"],
  ])("%j", async (args, sentence) => {
    await expect(run([...args, "--model", golden])).rejects.toThrow(sentence);
  });

  test.skipIf(probeDevice().gpuCount > 0)(
    "without a GPU the error names the alternatives",
    async () => {
      await expect(run(["--model", golden])).rejects.toThrow(
        "bench gpu needs an NVIDIA GPU and its driver, and none was found: --predict estimates",
      );
    },
  );

  test("a file of patches that is none is refused", async () => {
    const missing = join(folder, "nowhere.json");
    await expect(runScaling(["--patches", missing])).rejects.toThrow("cannot be read");
    const config = join(golden, "unet/config.json");
    expect(() => readPatchFile(config)).toThrow("is not what `bench gpu` writes");
  });
});

test("models and patches run on the emulated driver from end to end", async () => {
  const emulated = ["--device", "cuda-emulated", "--model", golden, "--out", folder];
  const small = ["--only", "models,patches", "--steps", "1", "--sides", "64"];
  expect(await run([...emulated, ...small])).toBe(0);
  const results = JSON.parse(readFileSync(join(folder, "gpu.json"), "utf8"));
  expect(results).toMatchObject({ isEmulated: true, failures: [] });
  expect(results.models).toHaveLength(3);
  expect(results.bars.every(({ isMet }: Bar) => isMet === null)).toBe(true);
  for (const row of results.models as ModelRow[]) {
    // Nothing else runs there: what is taken is what was planned, to the byte.
    expect(row.measuredBytes).toBe(row.plannedBytes);
  }
  const file = readPatchFile(join(folder, "gpu-patches.json"));
  expect(file.rows.map(({ ranks, branchGroups }) => [ranks, branchGroups])).toEqual([
    [1, 1],
    [2, 1],
    [2, 2],
  ]);
}, 240_000);
