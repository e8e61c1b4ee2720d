/**
 * Patches that send keys and values as changes in few bits: as near to one rank as patches that
 * send them whole, the same bits again, and the bytes and buffers that follow from the format.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { unetSizes } from "../../src/bench/formula.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { planRequest } from "../../src/pipeline/request.ts";
import { relativeL2 } from "../support/compare.ts";
import {
  draw,
  drawLatents,
  latentsOf,
  requestOf,
  type Work,
  withSession,
} from "../support/draw.ts";
import { refusal } from "../support/refusal.ts";
import { seed, seedName } from "../support/seed.ts";

// Many images each, and the cores may be busy.
setDefaultTimeout(60_000);

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const staleModes = [
  ...["corrected_async_gn", "stale_gn", "sync_gn", "separate_gn", "no_sync"],
] as const satisfies readonly Work["syncMode"][];
const unitRows = model.sizeMultiple / model.vaeFactor;

describe("images", () => {
  const cut = fc.record({
    rankCount: fc.integer({ min: 2, max: 5 }),
    splitBatch: fc.boolean(),
    guided: fc.constantFrom(1, 5),
    images: fc.integer({ min: 1, max: 2 }),
    spareRows: fc.integer({ min: 0, max: 3 }),
    warmupSteps: fc.integer({ min: 0, max: 3 }),
    // With a window the ranks are dealt anew twice, and nothing is known of what was before.
    hasWindow: fc.boolean(),
    syncMode: fc.constantFrom(...staleModes),
    compressExchange: fc.constantFrom("int8", "int4"),
  });

  test(`are near those of whole exchange, with the same bits again (${seedName})`, async () => {
    await fc.assert(
      fc.asyncProperty(cut, async ({ guided, images, spareRows, hasWindow, ...how }) => {
        const work: Work = {
          ...{ model, ...how, guidanceScale: guided },
          seeds: Array.from({ length: images }, (_, i) => BigInt(i)),
          ...{ width: 64, height: (how.rankCount + spareRows) * model.sizeMultiple },
          stepCount: 6,
          ...(hasWindow && { guidedSteps: [2, 5] as const }),
        };
        const ours = await draw(work);
        expect(await drawLatents({ ...work, testHooks: { delaySeed: 3 } })).toEqual(
          latentsOf(ours),
        );
        const plain = await draw({ ...work, compressExchange: "none" });
        const isAlone = plain.ranks.every(({ keysValuesBytes }) => keysValuesBytes === 0);
        const difference = relativeL2(latentsOf(ours), latentsOf(plain));
        if (isAlone) return expect(difference).toBe(0);
        expect(difference).toBeLessThanOrEqual(how.compressExchange === "int8" ? 2e-3 : 2e-2);
        // What is sent in few bits is read two steps after ranks were dealt anew. A rank for each
        // branch exchanges nothing within the window, and the steps around it are too few.
        const isBranch = hasWindow && how.splitBatch && how.rankCount === 2 && guided > 1;
        if (how.syncMode !== "no_sync" && !isBranch) expect(difference).toBeGreaterThan(0);
      }),
      { numRuns: 8, seed },
    );
  });

  // Keys and values of deep blocks are sent in full steps alone, and change over several steps.
  test.each(["int8", "int4"] as const)("with deep features of earlier steps: %s", async (how) => {
    const deep = ["full", "full", "cached", "cached", "full", "cached", "full", "cached"] as const;
    const work: Work = {
      ...{ model, rankCount: 3, splitBatch: false, width: 64, height: 4 * model.sizeMultiple },
      ...{ stepCount: deep.length, warmupSteps: 1, syncMode: "corrected_async_gn" },
      ...{ outerSkips: 2, reuse: deep.map((each) => ({ deep: each, cross: "compute" })) },
    };
    const ours = await draw({ ...work, compressExchange: how });
    expect(ours.stepParts.filter((part) => part.deep === "reuse")).toHaveLength(4);
    expect(
      await drawLatents({ ...work, compressExchange: how, testHooks: { delaySeed: 3 } }),
    ).toEqual(latentsOf(ours));
    const plain = await draw(work);
    const difference = relativeL2(latentsOf(ours), latentsOf(plain));
    expect(difference).toBeLessThanOrEqual(how === "int8" ? 2e-3 : 2e-2);
    expect(difference).toBeGreaterThan(0);
    const one = await drawLatents({ ...work, rankCount: 1 });
    const [error, before] = [ours, plain].map((image) => relativeL2(latentsOf(image), one));
    expect(error!).toBeLessThanOrEqual(1.1 * before!);
    const bytes = (image: typeof ours) => image.ranks.map((rank) => rank.keysValuesBytes);
    for (const [i, sent] of bytes(ours).entries()) expect(sent).toBeLessThan(bytes(plain)[i]!);
  });

  test("are the same with other images, modes and formats between", async () => {
    const work: Work = {
      ...{ model, rankCount: 3, splitBatch: false, compressExchange: "int8", stepCount: 5 },
      ...{ width: 64, height: 160, syncMode: "corrected_async_gn" },
    };
    const fresh = await drawLatents(work);
    await withSession(work, async (session) => {
      for (const changes of [{}, { compressExchange: "int4" }, { compressExchange: "none" }, {}]) {
        const other = requestOf({ ...work, ...(changes as Partial<Work>) });
        const latents = latentsOf(await session.image(other));
        if (other.compressExchange === "int8") expect(latents).toEqual(fresh);
        else expect(latents).not.toEqual(fresh);
      }
    });
  });
});

describe("bytes and buffers follow from the format", () => {
  // The model's keys have 8 and 16 channels: groups of as many numbers, each with a scale.
  test.each([
    ["int8", 8],
    ["int4", 4],
  ] as const)("%s", async (compressExchange, bits) => {
    const [rankCount, rows, columns, stepCount] = [3, 5, 3, 4];
    const work: Work = {
      ...{ model, rankCount, splitBatch: false, stepCount, warmupSteps: 1 },
      ...{ width: columns * model.sizeMultiple, height: rows * model.sizeMultiple },
      ...{ syncMode: "stale_gn", extrapolateHalos: false },
    };
    const plain = await draw(work);
    const ours = await draw({ ...work, compressExchange });
    const sum = (of: (rank: (typeof ours.ranks)[number]) => number, ranks = ours.ranks) =>
      ranks.reduce((total, rank) => total + of(rank), 0);
    const sizes = unetSizes(model.unet, rows * unitRows, columns * unitRows);
    const elements = 2 * sizes.keysValues;
    const scales = elements / groupOf();
    const change = (elements * bits) / 8 + 2 * scales;
    const whole = 4 * elements;
    // Each rank receives what the two others send.
    const received = (rankCount - 1) * (whole + (stepCount - 1) * change);
    expect(sum(({ keysValuesBytes }) => keysValuesBytes)).toBe(received);
    expect(sum(({ keysValuesBytes }) => keysValuesBytes, plain.ranks)).toBe(
      (rankCount - 1) * stepCount * whole,
    );
    // All views on every rank and two buffers of changes, in the place of two of keys and values.
    const buffers = sum(({ bufferBytes }) => bufferBytes, plain.ranks);
    expect(sum(({ bufferBytes }) => bufferBytes)).toBe(
      buffers - 2 * whole + rankCount * whole + 2 * change,
    );
  });

  /** One size of keys in all layers of the model that have attention, so one group. */
  function groupOf(): number {
    const widths = model.unet.blockOutChannels.filter((_, level) =>
      (model.unet.downTransformerLayers[level] ?? []).some((count) => count > 0),
    );
    expect(new Set(widths.map((width) => Math.min(64, width & -width))).size).toBe(1);
    return Math.min(64, widths[0]! & -widths[0]!);
  }
});

test("full_sync is exact, and refuses it", async () => {
  const how = { syncMode: "full_sync", compressExchange: "int8" } as const;
  const request = { prompt: "", ...how, width: 64, height: 64 };
  const none = { files: [], names: null };
  const weights = { textEncoder: none, textEncoder2: none, unet: none, vae: none };
  expect(await refusal(() => planRequest(request, { ...model, weights }, 2), "bad-option")).toBe(
    "compressExchange int8 does not go with syncMode full_sync, which is exact.",
  );
});
