/**
 * Rows by shares: N ranks in full_sync equal one with any shares, from any step on; stale modes
 * give the same bits again; measured shares are found, and given by hand they make the same image.
 * And the warm-up that ends by itself.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { openModelFolder } from "../../src/models/folder.ts";
import { unitsBy } from "../../src/pipeline/balance.ts";
import { Pipeline } from "../../src/pipeline.ts";
import { relativeL2 } from "../support/compare.ts";
import { draw, drawLatents, latentsOf, type Work } from "../support/draw.ts";
import { refusal } from "../support/refusal.ts";
import { seed, seedName } from "../support/seed.ts";

// Many images each, and the cores may be busy.
setDefaultTimeout(60_000);

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const unit = model.sizeMultiple;
const unitRows = unit / model.vaeFactor;

const cut = fc.record({
  shares: fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 2, maxLength: 6 }),
  spareRows: fc.integer({ min: 0, max: 6 }),
  step: fc.integer({ min: 0, max: 4 }),
  guided: fc.constantFrom(1, 5),
  hasWindow: fc.boolean(),
  images: fc.integer({ min: 1, max: 2 }),
  compressExchange: fc.constantFrom("none", "int8"),
  syncMode: fc.constantFrom("corrected_async_gn", "sync_gn", "no_sync"),
});
type Cut = typeof cut extends fc.Arbitrary<infer T> ? T : never;

function workOf({ shares, spareRows, step, guided, hasWindow, images }: Cut): Work {
  return {
    ...{ model, rankCount: shares.length, splitBatch: false, warmupSteps: 1, stepCount: 5 },
    ...{ width: 64, height: (shares.length + spareRows) * unit, guidanceScale: guided },
    seeds: Array.from({ length: images }, (_, i) => BigInt(i)),
    balance: { shares, step, measures: false },
    ...(hasWindow && { guidedSteps: [1, 4] as const }),
  };
}

describe("rows by shares", () => {
  test(`equal one rank in full_sync, with any shares from any step on (${seedName})`, async () => {
    await fc.assert(
      fc.asyncProperty(cut, async (sampled) => {
        const work = workOf(sampled);
        const ours = await draw({ ...work, syncMode: "full_sync" });
        const one = await drawLatents({ ...work, rankCount: 1, balance: null });
        expect(relativeL2(latentsOf(ours), one)).toBeLessThanOrEqual(1e-5);
        const units = unitsBy(sampled.shares, sampled.shares.length + sampled.spareRows);
        if (sampled.step > 0 || sampled.guided === 1 || sampled.hasWindow) return;
        const rows = ours.ranks.map(({ unetRows }) => unetRows);
        expect(rows).toEqual(units.map((u) => u * unitRows * 2 * sampled.images * 5));
      }),
      { numRuns: 10, seed },
    );
  });

  test(`give the same bits again in stale modes (${seedName})`, async () => {
    await fc.assert(
      fc.asyncProperty(cut, async (sampled) => {
        const { syncMode, compressExchange } = sampled;
        const work = { ...workOf(sampled), syncMode, compressExchange };
        const first = await drawLatents(work);
        expect(await drawLatents({ ...work, testHooks: { delaySeed: 5 } })).toEqual(first);
        const one = await drawLatents({ ...work, rankCount: 1, balance: null });
        expect(relativeL2(first, one)).toBeLessThanOrEqual(0.3);
      }),
      { numRuns: 6, seed },
    );
  });

  test("that are equal change nothing", async () => {
    const work: Work = { model, rankCount: 3, splitBatch: false, width: 64, height: 5 * unit };
    const plain = await drawLatents(work);
    const balance = { shares: [7, 7, 7], step: 0, measures: false };
    expect(await drawLatents({ ...work, balance })).toEqual(plain);
  });

  test("that were measured make the same image by hand", async () => {
    const work: Work = {
      ...{ model, rankCount: 3, splitBatch: false, stepCount: 7, warmupSteps: 1 },
      ...{ width: 64, height: 9 * unit, syncMode: "corrected_async_gn" },
    };
    const measured = await draw({
      ...work,
      balance: { shares: [], step: 0, measures: true },
      // So slow that no neighbour on this machine matters.
      testHooks: { slow: { rank: 1, percent: 2000 } },
    });
    const { balance } = measured.found;
    expect(balance!.step).toBe(4);
    expect(balance!.shares[1]).toBe(1);
    expect(balance!.shares.reduce((sum, share) => sum + share, 0)).toBe(9);
    const again = await draw({ ...work, balance: { ...balance!, measures: false } });
    expect(latentsOf(again)).toEqual(latentsOf(measured));
    expect(again.found.balance).toBeNull();
  });

  // Ranks that share cores too: of each its own time counts.
  test.each([1, 3])("stay equal where ranks are, on %d threads", async (threadCount) => {
    const work: Work = {
      ...{ model, rankCount: 3, splitBatch: false, stepCount: 6, warmupSteps: 1, threadCount },
      ...{ width: 64, height: 6 * unit, syncMode: "corrected_async_gn" },
    };
    const balance = { shares: [], step: 0, measures: true };
    const measured = await draw({ ...work, balance });
    expect(measured.found.balance).toBeNull();
    expect(latentsOf(measured)).toEqual(await drawLatents(work));
  });
});

test("a warm-up ends by itself, and its number makes the same image", async () => {
  const work: Work = {
    ...{ model, rankCount: 2, splitBatch: false, stepCount: 9 },
    ...{ width: 64, height: 128, syncMode: "corrected_async_gn" },
  };
  const counts = [];
  for (const warmupThreshold of [1, 0.2, 1e-9]) {
    const auto = await draw({ ...work, warmupSteps: 9, warmupThreshold });
    const { warmupSteps } = auto.found;
    counts.push(warmupSteps!);
    const again = await drawLatents({ ...work, warmupSteps: warmupSteps! });
    expect(again).toEqual(latentsOf(auto));
  }
  expect(counts[0]).toBe(2);
  expect(counts[2]).toBe(8);
  expect(counts).toEqual(counts.toSorted());
});

describe("a pipeline", () => {
  const devices = { device: "cpu", rankCount: 3 } as const;
  const first = { prompt: "a red circle", width: 64, height: 160, stepCount: 6, seeds: [1n] };

  test("takes shares as a setting, and says what it found", async () => {
    await using pipeline = await Pipeline.open({ model, devices, first });
    const given = await pipeline.generate({ ...first, balance: "2:1:1", warmupSteps: 1 });
    expect(given).toMatchObject({ balance: "2:1:1", warmupSteps: 1 });
    expect(given.layout).toContain("3 patches (12 + 4 + 4 rows)");
    const auto = await pipeline.generate({ ...first, warmupSteps: "auto" });
    expect(auto.balance).toBe("off");
    expect(auto.warmupSteps).toBeGreaterThanOrEqual(2);
    expect(auto.images[0]!.origin.parts().plan.settings.warmupSteps).toBe(auto.warmupSteps);
  });

  test.each([
    ["2:1", "balance 2:1 has 2 shares, and there are 3 ranks: give each rank one."],
    ["1:1:1:1", "balance 1:1:1:1 has 4 shares, and there are 3 ranks: give each rank one."],
    [
      "2:0:1",
      "balance 2:0:1: a share is a whole number from 1 to 1000, not 0. With 0 a rank has no " +
        "rows: leave it out instead.",
    ],
    ["2:1001:1", "balance 2:1001:1: a share is a whole number from 1 to 1000, not 1001."],
    ["2:1:1@6", "balance 2:1:1@6: there is no step 6 of 6, counted from 0."],
    ["fast", 'balance must be off, auto or a share for each rank, such as 2:1:1:1, not "fast".'],
  ])("refuses %s", async (balance, sentence) => {
    const opened = () => Pipeline.open({ model, devices, first: { ...first, balance } });
    expect(await refusal(opened, "bad-option")).toBe(sentence);
  });

  test.each(["auto", "2:1:1@2"])("refuses %s with gated cross-attention", async (balance) => {
    const gated = { ...first, crossAttentionGate: 3, balance };
    const opened = () => Pipeline.open({ model, devices, first: gated });
    expect(await refusal(opened, "bad-option")).toBe(
      `balance ${balance} does not go with crossAttentionGate: give shares that hold from the ` +
        "first step on, such as 2:1:1:1.",
    );
  });

  test("repeats measured rows from metadata", async () => {
    await using pipeline = await Pipeline.open({ model, devices, first });
    const auto = await pipeline.generate({ ...first, balance: "auto", wantLatents: true });
    const { balance, splitBatch } = auto.images[0]!.origin.parts().plan.settings;
    const again = await pipeline.generate({ ...first, balance, splitBatch, wantLatents: true });
    expect(again.latents).toEqual(auto.latents);
  });

  test("refuses more ranks than units of rows", async () => {
    const flat = { ...first, height: 64, balance: "9:1:1" };
    expect(
      await refusal(() => Pipeline.open({ model, devices, first: flat }), "bad-option"),
    ).toContain("3 ranks are 3 patches, and a height of 64 has rows for 2");
  });
});
