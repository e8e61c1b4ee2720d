/**
 * The layout of ranks: every row is assigned once, and impossible layouts are refused with a rank
 * count and a height that work.
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { BasedXLError } from "../../src/errors.ts";
import { type LayoutRequest, layoutOf } from "../../src/pipeline/layout.ts";
import { asFlag } from "../../src/settings/values.ts";
import { refusal } from "../support/refusal.ts";

const vaeFactor = 8;

/** SDXL's unit, with guidance and split branches by default. */
function request(changes: Partial<LayoutRequest> = {}): LayoutRequest {
  const usual = { rankCount: 1, guidance: true, splitBatch: true, latentRows: 128, rowUnit: 4 };
  return { ...usual, vaeFactor, naming: asFlag, ...changes };
}

const requests: fc.Arbitrary<LayoutRequest> = fc
  .record({
    rankCount: fc.integer({ min: 1, max: 16 }),
    guidance: fc.boolean(),
    splitBatch: fc.boolean(),
    unitCount: fc.integer({ min: 1, max: 24 }),
    rowUnit: fc.constantFrom(1, 2, 4, 8),
  })
  .map(({ unitCount, ...rest }) => {
    return { ...rest, vaeFactor, latentRows: unitCount * rest.rowUnit, naming: asFlag };
  });

function accepts(asked: LayoutRequest): boolean {
  try {
    layoutOf(asked);
    return true;
  } catch (error) {
    if (error instanceof BasedXLError && error.code === "bad-option") return false;
    throw error;
  }
}

describe("whatever can be dealt", () => {
  test("is dealt once, in whole units, larger shares first and one unit apart at most", () => {
    fc.assert(
      fc.property(requests.filter(accepts), (asked) => {
        const { rankCount, branchGroups, patches } = layoutOf(asked);
        const { rowUnit, latentRows } = asked;
        expect(rankCount).toBe(asked.rankCount);
        expect(branchGroups * patches.length).toBe(rankCount);
        expect(patches.reduce((sum, rows) => sum + rows, 0)).toBe(latentRows);
        for (const rows of patches) expect(rows % rowUnit).toBe(0);
        expect(Math.min(...patches)).toBeGreaterThanOrEqual(rowUnit);
        expect(Math.max(...patches) - Math.min(...patches)).toBeLessThanOrEqual(rowUnit);
        expect(patches).toEqual([...patches].sort((a, b) => b - a));
      }),
    );
  });

  test("splits branches with guidance, an even number of ranks and split_batch", () => {
    fc.assert(
      fc.property(requests.filter(accepts), (asked) => {
        const splits = asked.guidance && asked.splitBatch && asked.rankCount % 2 === 0;
        expect(layoutOf(asked).branchGroups).toBe(splits ? 2 : 1);
      }),
    );
  });

  test("is everything with a unit for each patch", () => {
    fc.assert(
      fc.property(requests, (asked) => {
        const splits = asked.guidance && asked.splitBatch && asked.rankCount % 2 === 0;
        const patchCount = asked.rankCount / (splits ? 2 : 1);
        expect(accepts(asked)).toBe(asked.latentRows / asked.rowUnit >= patchCount);
      }),
    );
  });
});

describe("refusals", () => {
  test("name the nearest smaller count and the smallest height that work", async () => {
    const refused = requests.filter((asked) => !accepts(asked));
    await fc.assert(
      fc.asyncProperty(refused, async (asked) => {
        const sentence = await refusal(() => layoutOf(asked), "bad-option");
        const rankCount = Number(/--gpus (\d+)/.exec(sentence)?.[1]);
        const latentRows = Number(/at least (\d+)\./.exec(sentence)?.[1]) / vaeFactor;
        expect(accepts({ ...asked, rankCount })).toBe(true);
        expect(accepts({ ...asked, latentRows })).toBe(true);
        expect(accepts({ ...asked, latentRows: latentRows - asked.rowUnit })).toBe(false);
        for (let between = rankCount + 1; between < asked.rankCount; between++) {
          expect(accepts({ ...asked, rankCount: between })).toBe(false);
        }
      }),
    );
  });

  test.each([
    [
      { rankCount: 7, latentRows: 16 },
      "7 ranks are 7 patches, and a height of 128 has rows for 4: use 6 ranks (--gpus 6), or a " +
        "height of at least 224.",
    ],
    [
      { rankCount: 16, latentRows: 8 },
      "16 ranks are 8 patches, and a height of 64 has rows for 2: use 4 ranks (--gpus 4), or a " +
        "height of at least 256.",
    ],
    [
      { rankCount: 2, latentRows: 4, guidance: false },
      "2 ranks are 2 patches, and a height of 32 has rows for 1: use 1 rank (--gpus 1), or a " +
        "height of at least 64.",
    ],
    [
      { rankCount: 3, latentRows: 8, vaeFactor: undefined },
      "3 ranks are 3 patches, and a height of 8 latent rows has rows for 2: use 2 ranks " +
        "(--gpus 2), or a height of at least 12 latent rows.",
    ],
    [{ latentRows: 10 }, "--height must be a multiple of 32, not 80: the nearest is 96."],
    [{ latentRows: 1 }, "--height must be a multiple of 32, not 8: the nearest is 32."],
    [{ rankCount: 0 }, "--gpus must be a whole number from 1 to 16, not 0."],
    [{ rankCount: 17 }, "--gpus must be a whole number from 1 to 16, not 17."],
    [{ rankCount: 0, naming: undefined }, "rankCount must be a whole number from 1 to 16, not 0."],
    [
      { rankCount: 2, latentRows: 4, guidance: false, naming: undefined },
      "2 ranks are 2 patches, and a height of 32 has rows for 1: use 1 rank (rankCount 1), or a " +
        "height of at least 64.",
    ],
    [{ rankCount: 1.5 }, "--gpus must be a whole number from 1 to 16, not 1.5."],
  ])("%p", async (changes, expected) => {
    expect(await refusal(() => layoutOf(request(changes)), "bad-option")).toBe(expected);
  });
});

describe("in words", () => {
  test.each([
    [{}, "1 rank = both guidance branches"],
    [{ guidance: false }, "1 rank, no guidance"],
    [{ rankCount: 2 }, "2 ranks = 2 guidance branches"],
    [{ rankCount: 4 }, "4 ranks = 2 guidance branches × 2 patches (64 + 64 rows)"],
    [{ rankCount: 3 }, "3 ranks = 3 patches (44 + 44 + 40 rows), both guidance branches on each"],
    [
      { rankCount: 4, splitBatch: false, latentRows: 152 },
      "4 ranks = 4 patches (40 + 40 + 36 + 36 rows), both guidance branches on each",
    ],
    [{ rankCount: 2, guidance: false }, "2 ranks = 2 patches (64 + 64 rows), no guidance"],
  ])("%p", (changes, text) => {
    expect(layoutOf(request(changes)).text).toBe(text);
  });
});
