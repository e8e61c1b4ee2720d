/**
 * CUDA graphs on the emulated driver: replaying a graph changes no bit. The sizes are chosen so
 * that tensors of different shapes have equal byte counts, hence equal addresses: only the graph's
 * key distinguishes them.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { nativeModelOf } from "../../src/models/native-model.ts";
import { ModelParts, randomNormal } from "../../src/native/testing.ts";
import { relativeL2 } from "../support/compare.ts";
import { draw, latentsOf, requestOf, type Work, withSession } from "../support/draw.ts";
import { emulated } from "../support/emulator.ts";

// Emulated threads are slow, and the cores may be busy.
setDefaultTimeout(240_000);

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
const eager = emulated({ graphs: false });

describe("a session that alternates between turned sizes", () => {
  const turned = [
    { sides: [32, 64], seeds: [11n, 12n] },
    { sides: [64, 96], seeds: [11n] },
  ];

  test.each(turned)("$sides, seeds $seeds: the bits of fresh sessions", async (one) => {
    const [width = 0, height = 0] = one.sides;
    const work: Work = { model, width, height, seeds: one.seeds, stepCount: 3 };
    await expectFreshBits({ ...work, gpu: emulated() }, [
      { width, height },
      { width: height, height: width },
      { width, height },
      { width: height, height: width },
    ]);
  });

  test("two patches: equal own rows of images of different heights", async () => {
    // The halo and the other patch differ; the first patch's own rows do not.
    const work: Work = { model, width: 32, height: 64, rankCount: 2, splitBatch: false };
    await expectFreshBits({ ...work, gpu: emulated(), stepCount: 3 }, [
      { height: 64 },
      { height: 96 },
      { height: 96 },
    ]);
  });
});

// tests/cuda/images.test.ts goes through every mode in one session.
test("one session through modes and batches: the bits of eager launches", async () => {
  const work: Work = { model, width: 32, height: 64, stepCount: 4, rankCount: 2 };
  const pair: Work = { ...work, splitBatch: false };
  const requests = [
    { syncMode: "corrected_async_gn", seeds: [11n] },
    { syncMode: "corrected_async_gn", seeds: [11n, 12n] },
    { syncMode: "full_sync", seeds: [11n, 12n] },
  ] as const;
  await withSession({ ...pair, gpu: emulated() }, async (graphed) => {
    await withSession({ ...pair, gpu: eager }, async (plain) => {
      for (const request of requests) {
        const ours = await graphed.image(requestOf({ ...pair, ...request }));
        const theirs = await plain.image(requestOf({ ...pair, ...request }));
        expect({ ...request, isEqual: sameBits(latentsOf(ours), latentsOf(theirs)) }).toEqual({
          ...request,
          isEqual: true,
        });
        // The same bits prove nothing where nothing was replayed.
        expect(ours.ranks[0]?.graphsReplayed).toBeGreaterThan(0);
        expect(theirs.ranks[0]?.graphsReplayed).toBe(0);
      }
    });
  });
});

test("halos extrapolated and not, in one session: the bits of fresh sessions", async () => {
  const work: Work = { model, width: 32, height: 64, stepCount: 4, rankCount: 2 };
  const syncMode = "corrected_async_gn";
  await expectFreshBits({ ...work, syncMode, splitBatch: false, gpu: emulated() }, [
    { extrapolateHalos: true },
    { extrapolateHalos: false },
    { extrapolateHalos: true },
  ]);
});

describe("VAE tiles of equal byte counts and turned shapes", () => {
  // Tiles of 8 every 6: 8x8, 8x4 and 4x8 at the right and bottom edges, 4x4 in the corner.
  const [rows, width, tile] = [16, 16, 8];
  const sample = randomNormal(1n, 1, model.vae.latentChannels * rows * width);

  test("graphs change no bit, and the image is the CPU's", async () => {
    const ours = await decode(emulated());
    expect(sameBits(ours, await decode(eager))).toBe(true);
    // Some twenty roundings to 11 bits, one after the other.
    expect(relativeL2(ours, await decode(null))).toBeLessThanOrEqual(5e-3);
  });

  async function decode(gpu: ReturnType<typeof emulated> | null): Promise<Float32Array> {
    const parts = await ModelParts.open(nativeModelOf(model), { gpu });
    try {
      return (await parts.decode(sample, rows, width, tile)).image;
    } finally {
      await parts.close();
    }
  }
});

/** Runs the changes of `work` in one session, each against a session of its own. */
async function expectFreshBits(work: Work, changes: Partial<Work>[]): Promise<void> {
  const fresh = new Map<string, Float32Array>();
  await withSession(work, async (session) => {
    for (const change of changes) {
      const changed = { ...work, ...change };
      const warm = latentsOf(await session.image(requestOf(changed)));
      const key = JSON.stringify(change);
      const alone = fresh.get(key) ?? latentsOf(await draw({ ...changed, gpu: eager }));
      fresh.set(key, alone);
      expect({ change, isEqual: sameBits(warm, alone) }).toEqual({ change, isEqual: true });
    }
  });
}

function sameBits(a: Float32Array, b: Float32Array): boolean {
  return Buffer.from(a.buffer).equals(Buffer.from(b.buffer));
}
