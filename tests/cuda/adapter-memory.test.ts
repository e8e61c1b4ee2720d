/**
 * Adapters over 8-bit weights on a GPU with little memory: what merged copies take is counted
 * before the job begins, and copies that the next set does not need give way.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { runAdapters } from "../support/adapter-memory-run.ts";

// Emulated threads are slow, and the cores may be busy.
setDefaultTimeout(240_000);

const mebibytes = (bytes: number) => Math.ceil(bytes / 2 ** 20);

test("a set gets the memory of the one before, or is refused with advice", () => {
  const ample = runAdapters(null);
  const [plain, products, convolutions] = ample.map(({ deviceBytes }) => deviceBytes);
  for (const { message } of ample) expect(message).toBeNull();
  expect(ample[3]).toEqual(ample[0]!);
  expect(ample[4]).toEqual(ample[1]!);

  const either = mebibytes(Math.max(products!, convolutions!));
  expect(mebibytes(products! + convolutions! - plain!)).toBeGreaterThan(either);
  expect(runAdapters(either)).toEqual(ample);

  const neither = mebibytes(plain!);
  expect(mebibytes(Math.min(products!, convolutions!))).toBeGreaterThan(neither + 2);
  for (const { adapters, message, hash } of runAdapters(neither)) {
    expect(hash).toBe(adapters === "none" ? ample[0]!.hash : null);
    if (adapters === "none") continue;
    expect(message).toMatch(/^The image needs .* GiB of free memory on GPU 0 \(0\.0[1-9] GiB for /);
    expect(message).toMatch(/ are free\. (What fits: |No smaller image fits either: )/);
  }
});
