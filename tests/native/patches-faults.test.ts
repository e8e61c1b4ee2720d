/**
 * A rank that fails or stalls in the middle of an image: every rank stops, one sentence names the
 * rank and the step, and the session generates the next image normally.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { type SyncMode, syncModes } from "../../src/settings/names.ts";
import { latentsOf, requestOf, type Work, withSession } from "../support/draw.ts";
import { refusal } from "../support/refusal.ts";

// Many images each, and the cores may be busy.
setDefaultTimeout(60_000);

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const stallLimitMs = 200;
const stepCount = 4;

function workOf(rankCount: number, splitBatch: boolean, syncMode: SyncMode): Work {
  return {
    model,
    width: 64,
    height: 160,
    stepCount,
    warmupSteps: 1,
    rankCount,
    splitBatch,
    syncMode,
  };
}

const cuts = [
  // Each rank has a branch to itself: they meet at the end of a step alone.
  { rankCount: 2, splitBatch: true },
  { rankCount: 2, splitBatch: false },
  { rankCount: 5, splitBatch: false },
  { rankCount: 6, splitBatch: true },
];
const cases = [
  ...cuts.map((cut) => ({ ...cut, syncMode: "corrected_async_gn" as const })),
  ...syncModes.map((syncMode) => ({ rankCount: 3, splitBatch: false, syncMode })),
];

describe("a rank that", () => {
  test.each(cases)("fails: one of $rankCount, split $splitBatch, $syncMode", async (c) => {
    const work = workOf(c.rankCount, c.splitBatch, c.syncMode);
    await withSession(work, async (session) => {
      const whole = latentsOf(await session.image(requestOf(work)));
      for (const rank of [0, c.rankCount - 1, c.rankCount >> 1]) {
        // The first, a synchronous one, one that reads old values, and the last.
        for (const step of [1, 2, 3, stepCount]) {
          const fault = { kind: "fail", rank, step } as const;
          const broken = requestOf({ ...work, testHooks: { fault } });
          const sentence = await refusal(() => session.image(broken), "rank-failed");
          expect(sentence).toBe(`Rank ${rank} failed at step ${step}. No image was written.`);
        }
        expect(latentsOf(await session.image(requestOf(work)))).toEqual(whole);
      }
    });
  });

  test.each(cases)("stalls: one of $rankCount, split $splitBatch, $syncMode", async (c) => {
    const work = workOf(c.rankCount, c.splitBatch, c.syncMode);
    await withSession(work, async (session) => {
      const whole = latentsOf(await session.image(requestOf(work)));
      for (const [rank, step] of [
        [c.rankCount - 1, 1],
        [0, 3],
      ] as const) {
        const fault = { kind: "stall", rank, step } as const;
        const broken = requestOf({ ...work, testHooks: { fault, stallLimitMs } });
        const start = performance.now();
        const sentence = await refusal(() => session.image(broken), "rank-failed");
        expect(sentence).toContain(`Rank ${rank} stalled at step ${step}:`);
        expect(performance.now() - start).toBeLessThan(stallLimitMs + 3000);
        expect(latentsOf(await session.image(requestOf(work)))).toEqual(whole);
      }
    });
  });
});

test("a rank that is slow within the limit is waited for", async () => {
  const work = workOf(5, false, "corrected_async_gn");
  await withSession(work, async (session) => {
    const delayed = requestOf({ ...work, testHooks: { delaySeed: 3, stallLimitMs: 5000 } });
    const result = latentsOf(await session.image(delayed));
    expect(result).toEqual(latentsOf(await session.image(requestOf(work))));
  });
});
