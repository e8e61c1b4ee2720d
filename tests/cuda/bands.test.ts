/**
 * Patches that adapt on the emulated driver: rows that are dealt anew by measured speed, and a
 * warm-up that ends by itself. What was found makes the same image by hand.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { relativeL2 } from "../support/compare.ts";
import { draw, requestOf, type Work, withSession } from "../support/draw.ts";
import { emulated } from "../support/emulator.ts";

// Emulated threads are slow, and the cores may be busy.
setDefaultTimeout(240_000);

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const size = {
  ...{ model, width: model.sizeMultiple, splitBatch: false, rankCount: 2 },
  syncMode: "corrected_async_gn" as const,
};

test("rows are dealt by the measured speed of stale steps", async () => {
  const work: Work = {
    ...{ ...size, height: 3 * model.sizeMultiple, stepCount: 8, warmupSteps: 0 },
    gpu: emulated(),
  };
  await withSession(work, async (session) => {
    const balance = { shares: [], step: 0, measures: true };
    // So slow that a neighbour on this machine hardly matters.
    const slow = { rank: 0, percent: 500 };
    const measured = await session.image(requestOf({ ...work, balance, testHooks: { slow } }));
    // A synchronous step, three that may capture graphs and three that are timed.
    expect(measured.found.balance).toEqual({ shares: [1, 2], step: 7 });
    const byHand = { shares: [1, 2], step: 7, measures: false };
    const again = await session.image(requestOf({ ...work, balance: byHand }));
    expect(again.latents).toEqual(measured.latents);
    const onCpu = await draw({ ...work, balance: byHand, gpu: undefined });
    expect(relativeL2(again.latents!, onCpu.latents!)).toBeLessThanOrEqual(1e-2);
  });
});

test("a warm-up ends by itself", async () => {
  const work: Work = {
    ...{ ...size, height: 2 * model.sizeMultiple, stepCount: 5, warmupSteps: 5 },
    gpu: emulated(),
  };
  await withSession(work, async (session) => {
    const auto = await session.image(requestOf({ ...work, warmupThreshold: 1 }));
    expect(auto.found.warmupSteps).toBe(2);
    const again = await session.image(requestOf({ ...work, warmupSteps: 2 }));
    expect(again.latents).toEqual(auto.latents);
  });
});
