/**
 * The expected times of `bench gpu --predict`: waves by hand, the published products that the model
 * is held against, and what holds for every operation and every change of SDXL's step.
 */
import { beforeAll, describe, expect, test } from "bun:test";
import { builtKernels, changeRows, changes, type State } from "../../src/bench/gpu-changes.ts";
import { efficiencies, publishedProducts } from "../../src/bench/gpu-efficiencies.ts";
import {
  expectedMs,
  h200,
  productRatio,
  productShare,
  sumExpected,
  waveShare,
  whole,
} from "../../src/bench/gpu-expected.ts";
import { changesOf, expectedBar, expectedReport } from "../../src/bench/gpu-predict-expected.ts";
import { floorMs, planFor, withModel } from "../../src/bench/gpu-work.ts";

let built: State;

beforeAll(async () => {
  const work = { width: 1024, height: 1024, rankCount: 1, splitBatch: false } as const;
  const plan = await withModel(undefined, async (model) =>
    planFor({ model, ...work, dtype: "f16" }),
  );
  const entries = plan.passes[0]!.ranks[0]!.operations.filter(
    ({ place }) => place.stage === "denoise",
  );
  built = { entries, kernels: builtKernels() };
});

describe("the model", () => {
  test("waves of blocks", () => {
    expect(waveShare(160, 132)).toBeCloseTo(0.606, 3);
    expect(waveShare(640, 264)).toBeCloseTo(0.808, 3);
    expect(waveShare(264, 264)).toBe(1);
  });

  test("comes within a quarter of every published product, on average above it", () => {
    for (const product of publishedProducts) {
      expect(productRatio(product)).toBeGreaterThan(0.75);
      expect(productRatio(product)).toBeLessThan(1.1);
    }
    expect(productShare("expected")).toBeLessThan(1);
  });

  test("every efficiency is in order and says where it comes from", () => {
    for (const { fast, expected, slow, unit, source } of Object.values(efficiencies)) {
      const worse = unit === "us" ? 1 : -1;
      expect(worse * (expected - fast)).toBeGreaterThanOrEqual(0);
      expect(worse * (slow - expected)).toBeGreaterThanOrEqual(0);
      expect(source).toMatch(/estimate|arXiv|issue|discussion|Hazy|Guide/);
    }
  });

  test("no operation is expected below its ceiling, and ranges are in order", () => {
    for (const entry of built.entries) {
      const { fast, expected, slow } = whole(expectedMs(entry, built.kernels));
      expect(fast).toBeGreaterThanOrEqual(floorMs(entry, h200));
      expect(expected).toBeGreaterThanOrEqual(fast);
      expect(slow).toBeGreaterThanOrEqual(expected);
    }
  });

  test("a wave of 128 tiles takes the ceiling's time and the ramp", () => {
    const linear = built.entries.find(
      ({ operation: o }) => o.op === "linear" && o.rows > 1 && o.in === 1280 && o.out === 1280,
    )!;
    const { kernel } = expectedMs(linear, built.kernels);
    const tile = (1e3 * 2 * 128 * 160 * 1280) / (h200.flopsPerSecond / h200.multiprocessors);
    const share = 1 / (1 + 8 * (1 / 128 + 1 / 160 - 1 / 128 - 1 / 256));
    expect(kernel.fast).toBeCloseTo(tile / share + efficiencies.productRamp.fast / 1e3, 6);
  });
});

describe("changes", () => {
  const sums = ({ entries }: State) => {
    const sum = (of: (cost: State["entries"][number]["cost"]) => number) =>
      entries.reduce((all, { cost, count }) => all + count * of(cost), 0);
    return [sum(({ flops }) => flops), sum(({ bytes }) => bytes), sum((c) => c.launches)];
  };

  test("added, removed and added, each leaves what it was", () => {
    for (const change of changes) {
      const added = change.isIn(built) ? built : change.add(built);
      expect(change.isIn(added)).toBe(true);
      const removed = change.remove(added);
      if (removed === added) continue;
      expect(change.isIn(removed)).toBe(false);
      const again = change.add(removed);
      expect(sums(again)).toEqual(sums(added));
      expect(again.kernels).toEqual(added.kernels);
    }
  });

  test("none changes the FLOP, and launches and bytes do not grow", () => {
    const rows = changeRows(built).map(({ state }) => sums(state));
    for (const [index, row] of rows.entries()) {
      const before = rows[index - 1] ?? row;
      expect(row[0]).toBe(rows[0]![0]!);
      expect(row[1]!).toBeLessThanOrEqual(before[1]!);
      expect(row[2]!).toBeLessThanOrEqual(before[2]!);
    }
    expect(rows[0]![2]).toBe(1175);
  });

  test("what the code has, removed and added again, is the code's own step", () => {
    const before = changeRows(built)[0]!.state;
    const again = changes
      .filter((change) => change.isIn(built))
      .reduce((state, change) => (change.isIn(state) ? state : change.add(state)), before);
    const sum = ({ entries, kernels }: State) => whole(sumExpected(entries, kernels)).expected;
    expect(sum(again)).toBeCloseTo(sum(built), 9);
    expect(sums(again)).toEqual(sums(built));
  });

  test("GEGLU's passes and 70 launches go with it", () => {
    const rows = changesOf(built);
    const index = rows.findIndex(({ change }) => change.startsWith("GEGLU"));
    const gated = built.entries.filter(({ operation }) => operation.op === "linear_geglu");
    expect(gated.reduce((all, { count }) => all + count, 0)).toBe(70);
    expect(rows[index - 1]!.launches - rows[index]!.launches).toBe(70);
  });

  test("the queries' round trips and 70 launches go with their attention", () => {
    const rows = changesOf(built);
    const index = rows.findIndex(({ change }) => change.startsWith("cross-attention"));
    const [before, after] = [rows[index - 1]!, rows[index]!];
    expect(before.launches - after.launches).toBe(70);
    // Written once and read once, 2 bytes each: 10 blocks at 64x64 positions, 60 at 32x32, twice.
    const queries = 2 * (10 * 64 * 64 * 640 + 60 * 32 * 32 * 1280);
    expect(before.bytes - after.bytes).toBe(4 * queries);
    expect(after.expected.expected).toBeLessThan(before.expected.expected);
    expect(after.launches).toBeLessThanOrEqual(900);
  });

  test("with all that is proposed, the step meets the bar", () => {
    const rows = changesOf(built);
    expect(rows.at(-1)!.expected.expected).toBeLessThanOrEqual(expectedBar);
    expect(expectedReport(rows)).toContain("arXiv 2407.08608");
  });
});
