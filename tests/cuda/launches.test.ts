/**
 * Kernel launches of one UNet step of SDXL on a GPU of Hopper's, counted by a dry run: a GPU waits
 * about a microsecond for each. The bounds are what they are; what raises them should say why. One
 * patch is held to 900.
 */
import { expect, test } from "bun:test";
import { planFor, withModel } from "../../src/bench/gpu-work.ts";

test.each([
  [1, 886],
  [2, 1205],
  [8, 1305],
])("one step of SDXL at 1024x1024, %d patches", async (rankCount, bound) => {
  const launches = await withModel(undefined, async (model) => {
    const size = { width: 1024, height: 1024, rankCount, splitBatch: false };
    const { ranks } = planFor({ model, ...size, dtype: "f16" }).passes[0]!;
    return ranks.map(({ operations }) =>
      operations
        .filter(({ place }) => place.stage === "denoise")
        .reduce((sum, { count, cost }) => sum + count * cost.launches, 0),
    );
  });
  expect(Math.max(...launches)).toBeLessThanOrEqual(bound);
});
