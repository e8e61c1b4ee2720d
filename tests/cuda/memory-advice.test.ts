/**
 * The advice for an image that does not fit: each way that is named is tried, and works; a way that
 * would work and keeps the size is named.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { type OpenWork, runOpen } from "../support/open-run.ts";

// Emulated threads are slow, and the cores may be busy.
setDefaultTimeout(240_000);

const asked: OpenWork = {
  width: 512,
  height: 384,
  imageCount: 4,
  vaeTiling: false,
  rankCount: 1,
};

/** What a message advises, as the settings that it names. */
function variantsOf(message: string, work: OpenWork): OpenWork[] {
  const advice = message.slice(message.indexOf("What fits: ") + "What fits: ".length);
  if (!message.includes("What fits: ")) return [];
  return advice
    .replace(/\.$/, "")
    .split(/, or |, /)
    .map((item) => {
      const batch = /--batch-size (\d+)/.exec(item)?.[1];
      const ranks = /--gpus (\d+)/.exec(item)?.[1];
      const size = /a size of (\d+)x(\d+)/.exec(item);
      const variant = {
        ...work,
        imageCount: Number(batch ?? work.imageCount),
        rankCount: Number(ranks ?? work.rankCount),
        vaeTiling: work.vaeTiling || item.includes("--vae-tiling"),
        width: Number(size?.[1] ?? work.width),
        height: Number(size?.[2] ?? work.height),
      };
      expect(variant, item).not.toEqual(work);
      return variant;
    });
}

// The libraries take 64 MiB of it.
describe.each([76, 90, 95, 110, 180])("on a GPU of %d MiB", (memoryMiB) => {
  test.each([
    ["a batch", asked],
    ["one image", { ...asked, imageCount: 1 }],
    ["a batch of which one image fits smaller", { ...asked, imageCount: 16 }],
    ["small images in a batch", { ...asked, width: 128, height: 128 }],
    ["the size of one tile", { ...asked, width: 64, height: 64, imageCount: 8 }],
    ["two ranks on the GPU", { ...asked, rankCount: 2 }],
  ] as const)("%s: what is advised fits", (_, work) => {
    const [message] = runOpen([work], memoryMiB);
    if (message === null || message === undefined) return;
    expect(message).toMatch(/needs \d+\.\d\d GiB of free memory on GPU 0 .* are free\. /);
    const advised = variantsOf(message, work);
    expect(runOpen(advised, memoryMiB)).toEqual(advised.map(() => null));
    const canTile = work.rankCount === 1 && !work.vaeTiling;
    const others: OpenWork[] = [
      ...(canTile ? [{ ...work, vaeTiling: true }] : []),
      ...(work.imageCount > 1 ? [{ ...work, imageCount: 1 }] : []),
    ];
    const fits = runOpen(others, memoryMiB).some((refusal) => refusal === null);
    if (fits) expect(message).toMatch(/--vae-tiling|--batch-size/);
    if (advised.length > 0) return;
    expect(message).toContain("No smaller image fits either");
    const [refusal] = runOpen([{ ...work, width: 32, height: 32, imageCount: 1 }], memoryMiB);
    expect(refusal).not.toBeNull();
  });
});
