/**
 * The error of asynchronous patches against one rank: below DistriFusion's, and never a black
 * image. Its figures for the reference model were measured with its own modules on the same latents
 * and steps; relative L2 of the latents.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import type { ImageResult } from "../../src/pipeline/session.ts";
import { syncModes } from "../../src/settings/names.ts";
import { relativeL2 } from "../support/compare.ts";
import {
  draw,
  drawLatents,
  latentsOf,
  requestOf,
  type Work,
  withSession,
} from "../support/draw.ts";

// Many images each, and the cores may be busy.
setDefaultTimeout(60_000);

const golden = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const mini = await openModelFolder(join(import.meta.dir, "../../src/assets/mini-sdxl"));

const asDefault = { splitBatch: false, syncMode: "corrected_async_gn" } as const;

describe("the reference model is nearer to one rank than DistriFusion", () => {
  const work: Work = {
    ...asDefault,
    model: golden,
    prompt: "a photo of a red circle above a blue square",
    negative: "blurry, ugly",
    seeds: [42n],
    width: 256,
    height: 256,
    stepCount: 12,
    warmupSteps: 2,
  };

  test.each([
    { rankCount: 2, theirs: 2.0e-3 },
    { rankCount: 4, theirs: 3.4e-3 },
  ])("with $rankCount patches", async ({ rankCount, theirs }) => {
    const one = await drawLatents(work);
    expect(relativeL2(await drawLatents({ ...work, rankCount }), one)).toBeLessThan(theirs);
  });
});

const house = "a red house left of a green tree on the grass";
/** The bundled model; the empty negative prompt is encoded, as it was for DistriFusion. */
const bundled: Work = {
  ...asDefault,
  model: mini,
  prompt: house,
  negative: "",
  guidanceScale: 4,
  width: 256,
  height: 256,
  stepCount: 25,
  warmupSteps: 4,
};

/**
 * DistriFusion's result: stale halo rows unchanged, and its factor n / (n - 1) of the
 * variance. tests/native/patches.test.ts holds that to its own recorded runs, to 1e-4.
 */
const asDistriFusion = { extrapolateHalos: false, testHooks: { besselVariance: true } };

describe("the bundled model is nearer to one rank than DistriFusion", () => {
  const cat = "a large orange cat on a purple background";
  const diamond = "a purple diamond in the desert at sunset";

  test.each([
    { prompt: house, seed: 42n },
    { prompt: cat, seed: 43n },
    { prompt: diamond, seed: 44n },
  ])("$prompt, 2 and 4 patches", async ({ prompt, seed }) => {
    const work = { ...bundled, prompt, seeds: [seed] };
    const one = await drawLatents(work);
    for (const rankCount of [2, 4]) {
      const shared = { ...work, rankCount };
      await withSession(shared, async (session) => {
        const errorOf = async (how: Partial<Work>) =>
          relativeL2(latentsOf(await session.image(requestOf({ ...shared, ...how }))), one);
        const theirs = await errorOf(asDistriFusion);
        const plain = await errorOf({ extrapolateHalos: false });
        const predicted = await errorOf({ extrapolateHalos: true });
        expect(predicted).toBeLessThan(theirs);
        // Measured 0.016 to 0.129. Variances that nothing holds up leave 0.4 to 0.9 in four patches
        // of two of these scenes, with seams and textures that show.
        expect(plain).toBeLessThan(0.2);
        expect(predicted).toBeLessThan(0.2);
        // Other prompts too, and other cuts: tests/native/patches.test.ts.
        if (prompt !== house) return;
        expect(await errorOf({ syncMode: "full_sync" })).toBeLessThanOrEqual(1e-5);
      });
    }
  });
});

/** DistriFusion's issue 7: black images at eight ranks and small sizes. */
describe("eight ranks at small sizes generate an image", () => {
  const sizes = [
    // Patches of one unit of rows: the smallest there are.
    { width: 64, height: 256, splitBatch: false, warmupSteps: 4, stepCount: 25 },
    { width: 64, height: 256, splitBatch: false, warmupSteps: 0, stepCount: 25 },
    { width: 256, height: 256, splitBatch: false, warmupSteps: 4, stepCount: 12 },
    { width: 64, height: 128, splitBatch: true, warmupSteps: 4, stepCount: 25 },
  ];
  /** Levels of 255 from one rank's image, on average: about twice what was measured. */
  const distanceMax = {
    corrected_async_gn: 25,
    stale_gn: 25,
    sync_gn: 25,
    separate_gn: 80,
    full_sync: 0.01,
    no_sync: 100,
  };

  test.each(sizes)("$width x $height, split $splitBatch, warm-up $warmupSteps", async (size) => {
    const work = { ...bundled, ...size };
    const one = await draw(work);
    const contrast = contrastOf(one);
    expect(contrast).toBeGreaterThan(50);
    const eight = { ...work, rankCount: 8 };
    await withSession(eight, async (session) => {
      for (const syncMode of syncModes) {
        const result = await session.image(requestOf({ ...eight, syncMode }));
        expect(result.ranks).toHaveLength(8);
        expect(latentsOf(result).every(Number.isFinite)).toBe(true);
        // Measured 0.59 at least, in no_sync without a warm-up; one colour would be 0.
        expect(contrastOf(result) / contrast, syncMode).toBeGreaterThan(0.4);
        expect(distanceOf(result, one), syncMode).toBeLessThan(distanceMax[syncMode]);
      }
    });
  });
});

/** Standard deviation of the levels. */
function contrastOf({ images: [pixels = new Uint8Array()] }: ImageResult): number {
  const mean = pixels.reduce((sum, level) => sum + level, 0) / pixels.length;
  return Math.sqrt(pixels.reduce((sum, level) => sum + (level - mean) ** 2, 0) / pixels.length);
}

/** Mean distance of the levels. */
function distanceOf(ours: ImageResult, reference: ImageResult): number {
  const [pixels = new Uint8Array()] = ours.images;
  const theirs = reference.images[0]!;
  return pixels.reduce((sum, level, i) => sum + Math.abs(level - theirs[i]!), 0) / pixels.length;
}
