/**
 * A shape is planned once: the next image of its size computes no layout and does not run the
 * UNet's graph over the dry-run device again, on any rank.
 */
import { afterEach, expect, spyOn, test } from "bun:test";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { NativeHandle } from "../../src/native/handle.ts";
import { requestOf, type Work, withSession } from "../support/draw.ts";

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const opened = spyOn(NativeHandle, "open");

afterEach(() => void opened.mockClear());

/** Plans made and dry runs of the UNet so far, after opening and after each of `sizes`. */
async function countsOf(work: Work, sizes: [width: number, height: number][]) {
  return await withSession(work, async (session) => {
    const handle = (await opened.mock.results[0]?.value) as NativeHandle;
    const read = () => {
      const { planCount, unetDryRunCount } = handle.progress();
      return { planCount, unetDryRunCount };
    };
    const counts = [read()];
    for (const [i, [width, height]] of sizes.entries()) {
      await session.image(requestOf({ ...work, width, height, seeds: [BigInt(i)] }));
      counts.push(read());
    }
    return counts;
  });
}

test.each([
  { rankCount: 1, splitBatch: true, dryRuns: 1 },
  { rankCount: 2, splitBatch: true, dryRuns: 4 },
  { rankCount: 4, splitBatch: false, dryRuns: 8 },
])("$rankCount ranks plan each size once", async ({ rankCount, splitBatch, dryRuns }) => {
  const work: Work = {
    model,
    width: 64,
    height: 128,
    rankCount,
    splitBatch,
    stepCount: 2,
    syncMode: "corrected_async_gn",
  };
  const counts = await countsOf(work, [
    [64, 128],
    [64, 128],
    [128, 128],
    [64, 128],
    [128, 128],
  ]);
  const plans = counts.map(({ planCount }) => planCount);
  const walks = counts.map(({ unetDryRunCount }) => unetDryRunCount);
  expect(plans[0]).toBe(1);
  // The first image may differ from what was announced in its negative prompt.
  const first = plans[1] as number;
  expect(first).toBeLessThanOrEqual(2);
  expect(plans.slice(1)).toEqual([first, first, first + 1, first + 1, first + 1]);
  expect(walks).toEqual(plans.map((count) => count * dryRuns));
});
