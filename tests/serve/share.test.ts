/**
 * How ranks share the work, against the rule by exhaustion.
 */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { chooseShare, parseShare, SpeedMeter, shareText } from "../../src/serve/share.ts";

describe("--share", () => {
  test.each([
    ["auto", 4, ["4", "2x2", "1x4"]],
    ["auto", 6, ["6", "3x2", "2x3", "1x6"]],
    ["auto", 1, ["1"]],
    ["4", 4, ["4"]],
    ["4x1", 4, ["4"]],
    ["1x4", 4, ["1x4"]],
  ])("%s of %d ranks", (text, ranks, expected) => {
    expect(parseShare(text, ranks).map(shareText)).toEqual(expected);
  });
});

test("one job has all ranks, many jobs have one each", () => {
  const shares = parseShare("auto", 4);
  const chosen = (jobCount: number) => shareText(chooseShare(shares, { jobCount }));
  expect(chosen(1)).toBe("4");
  expect(chosen(100)).toBe("1x4");
  // What a change costs keeps the share.
  const changeCost = ({ images }: { images: number }) => (images === 1 ? 0 : 1000);
  expect(shareText(chooseShare(shares, { jobCount: 100, changeCost }))).toBe("4");
});

test("the mean time to the end of a job is the least there is", () => {
  const speeds = fc.record({
    two: fc.double({ min: 0.9, max: 2, noNaN: true }),
    four: fc.double({ min: 0.9, max: 4, noNaN: true }),
  });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 40 }), speeds, (jobCount, { two, four }) => {
      const speedup = (ranks: number) => (ranks === 1 ? 1 : ranks === 2 ? two : four);
      const shares = parseShare("auto", 4);
      const meanOf = ({ ranks, images }: { ranks: number; images: number }) => {
        let sum = 0;
        for (let job = 0; job < jobCount; job++) sum += Math.floor(job / images) + 1;
        return sum / jobCount / speedup(ranks);
      };
      const chosen = chooseShare(shares, { jobCount, speedup });
      const least = Math.min(...shares.map(meanOf));
      expect(meanOf(chosen)).toBeCloseTo(least, 9);
    }),
  );
});

test("speeds are measured where both were", () => {
  const meter = new SpeedMeter();
  expect(meter.speedup(4)).toBe(3.25);
  meter.note(1, 10, 20);
  meter.note(4, 10, 8);
  expect(meter.speedup(4)).toBeCloseTo(2.5);
  expect(meter.speedup(1)).toBe(1);
});
