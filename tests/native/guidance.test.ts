/**
 * Guidance that differs between steps: the factor of the image's scale, and steps outside the
 * guidance window, which compute the prompt's branch alone on all ranks.
 */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { syncModes } from "../../src/settings/names.ts";
import { relativeL2 } from "../support/compare.ts";
import { drawLatents, latentsOf, requestOf, type Work, withSession } from "../support/draw.ts";

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));

test("a step's factor times the scale is the step's guidance", async () => {
  const work: Work = { model, width: 32, height: 32, guidanceRescale: 0.5, guidanceScale: 6 };
  await withSession(work, async (session) => {
    const request = requestOf(work);
    const steps = request.steps.map((step) => ({ ...step, guidanceFactor: 0.5 }));
    const halved = latentsOf(await session.image({ ...request, steps }));
    const asked = latentsOf(await session.image({ ...request, guidanceScale: 3 }));
    expect(halved).toEqual(asked);
    expect(latentsOf(await session.image(request))).not.toEqual(asked);
  });
});

describe("outside the guidance window", () => {
  const size = { model, width: 32, height: 128, seeds: [5n, 6n] } as const;
  const work: Work = { ...size, stepCount: 6, guidedSteps: [1, 4], guidanceRescale: 0.3 };

  test("steps are those without guidance", async () => {
    const late: Work = { ...work, guidedSteps: [2, 6], stepsDone: 2 };
    const without = await drawLatents({ ...late, guidanceScale: 1 });
    expect(await drawLatents(late)).toEqual(without);
    expect(await drawLatents({ ...late, stepsDone: 3 })).not.toEqual(
      await drawLatents({ ...late, guidanceScale: 1, stepsDone: 3 }),
    );
  });

  test.each([
    { rankCount: 1 },
    { rankCount: 2 },
    { rankCount: 2, splitBatch: false },
    { rankCount: 3 },
    { rankCount: 4 },
    // Four units of rows for eight ranks: half of them are idle.
    { rankCount: 8 },
    { rankCount: 8, height: 256 },
  ])("no rank computes the negative branch, %j as one rank", async (ranks) => {
    const shape = { ...work, ...ranks };
    const whole = await drawLatents({ ...shape, rankCount: 1 });
    await withSession(shape, async (session) => {
      const result = await session.image(requestOf(shape));
      expect(relativeL2(latentsOf(result), whole)).toBeLessThanOrEqual(1e-5);
      const rows = (shape.height / model.vaeFactor) * shape.seeds!.length;
      const total = result.ranks.reduce((sum, { unetRows }) => sum + unetRows, 0);
      expect(total / rows).toBe(3 * 2 + 3);
      if (shape.rankCount !== 4) return;
      // Each has a row of a branch of two patches, then of four.
      expect(result.ranks.map(({ unetRows }) => unetRows)).toEqual(
        Array(4).fill((rows / 2) * 3 + (rows / 4) * 3),
      );
    });
  });

  test.each([...syncModes])("%s: the same bits again, near to one rank", async (syncMode) => {
    const one = await drawLatents({ ...work, stepCount: 8 });
    for (const ranks of [{ rankCount: 2, splitBatch: false }, { rankCount: 4 }]) {
      const stale: Work = { ...work, stepCount: 8, guidedSteps: [2, 6], ...ranks, syncMode };
      const first = await drawLatents(stale);
      expect(await drawLatents(stale)).toEqual(first);
      expect(relativeL2(first, one)).toBeLessThanOrEqual(0.2);
    }
  });
});
