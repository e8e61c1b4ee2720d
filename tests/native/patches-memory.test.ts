/**
 * Memory of patches: buffer sizes follow from the model's config, the process takes no more than
 * planned, and nothing grows with the steps.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { unetSizes } from "../../src/bench/formula.ts";
import { writeWideModel } from "../../src/bench/support/formula-weights.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { type SyncMode, syncModes } from "../../src/settings/names.ts";
import { draw } from "../support/draw.ts";
import { measureMemory } from "../support/memory-run.ts";

// Many images each, and the cores may be busy.
setDefaultTimeout(60_000);

const wideFolder = writeWideModel();
const models = {
  reference: await openModelFolder(join(import.meta.dir, "../fixtures/golden/model")),
  wide: await openModelFolder(wideFolder),
};

afterAll(() => rmSync(wideFolder, { recursive: true }));

describe("buffers of all ranks together", () => {
  /** f32, and statistics as doubles. */
  const elementBytes = { activation: 4, statistic: 8 };
  /** Old values are read while new ones are written; predicted halo rows need a step more. */
  const copiesOf = (syncMode: SyncMode, extrapolateHalos: boolean) => {
    const copies = syncMode === "full_sync" ? 1 : 2;
    const isPredicted = extrapolateHalos && !["full_sync", "no_sync"].includes(syncMode);
    return { keysValues: copies, statistics: copies, haloRows: isPredicted ? 3 : copies };
  };
  const cuts = [
    { model: "reference", rankCount: 2, splitBatch: false, guidanceScale: 5, images: 1 },
    { model: "reference", rankCount: 3, splitBatch: false, guidanceScale: 1, images: 2 },
    { model: "reference", rankCount: 4, splitBatch: true, guidanceScale: 5, images: 2 },
    { model: "wide", rankCount: 3, splitBatch: false, guidanceScale: 5, images: 1 },
  ] as const;

  test.each(
    syncModes.flatMap((syncMode) =>
      [true, false].map((extrapolateHalos) => ({ syncMode, extrapolateHalos })),
    ),
  )("follow from the config: $syncMode, predicted: $extrapolateHalos", async (mode) => {
    const copies = copiesOf(mode.syncMode, mode.extrapolateHalos);
    for (const { model: name, images, ...share } of cuts) {
      const model = models[name];
      // Five rows of units, so that patches are uneven.
      const [rows, columns] = [5, 3];
      const result = await draw({
        model,
        ...mode,
        ...share,
        width: columns * model.sizeMultiple,
        height: rows * model.sizeMultiple,
        seeds: Array.from({ length: images }, (_, i) => BigInt(i)),
        stepCount: 1,
      });
      const unit = model.sizeMultiple / model.vaeFactor;
      const sizes = unetSizes(model.unet, rows * unit, columns * unit);
      const samples = images * (share.guidanceScale > 1 ? 2 : 1);
      const patches = share.splitBatch ? share.rankCount / 2 : share.rankCount;
      // Every patch has a first and a last row and statistics; keys and values are dealt once.
      const activations =
        copies.keysValues * sizes.keysValues + copies.haloRows * 2 * patches * sizes.haloRow;
      const expected =
        samples *
        (elementBytes.activation * activations +
          elementBytes.statistic * copies.statistics * patches * sizes.statistics);
      const held = result.ranks.reduce((sum, { bufferBytes }) => sum + bufferBytes, 0);
      expect(held, `${name}, ${share.rankCount} ranks`).toBe(expected);
    }
  });

  test("are none where one rank has all rows", async () => {
    const work = { model: models.reference, width: 64, height: 64, stepCount: 1 };
    const alone = await draw(work);
    const branches = await draw({ ...work, rankCount: 2, syncMode: "stale_gn" });
    expect([...alone.ranks, ...branches.ranks].map(({ bufferBytes }) => bufferBytes)).toEqual([
      0, 0, 0,
    ]);
  });
});

describe.skipIf(process.platform !== "linux")("a process", () => {
  const work = { splitBatch: false, syncMode: "corrected_async_gn" } as const;

  test.each([1, 3])("takes what was planned within 3 %%: %d ranks", (rankCount) => {
    const size = { width: 1024, height: 1024, stepCount: 2 };
    const { planned, grown } = measureMemory({ ...work, ...size, rankCount });
    expect(grown / planned).toBeGreaterThan(0.97);
    expect(grown / planned).toBeLessThan(1.03);
  });

  test("takes no more after 200 steps than after 20", () => {
    const size = { width: 128, height: 128, stepCount: 200 };
    const { steps } = measureMemory({ ...work, ...size, rankCount: 2 });
    const early = steps.filter(({ step }) => step >= 20 && step < 60).map(({ bytes }) => bytes);
    const late = steps.filter(({ step }) => step >= 160).map(({ bytes }) => bytes);
    expect(Math.min(early.length, late.length)).toBeGreaterThan(0);
    // A leak of one small tensor per step would be tens of MiB.
    expect(Math.max(...late) - Math.max(...early)).toBeLessThan(2 * 1024 ** 2);
  });
});
