/**
 * Loaded pipelines where memory has room for one copy of the weights per GPU, or for two.
 */
import { expect, test } from "bun:test";
import { BasedXLError } from "../../src/errors.ts";
import { preparePipeline } from "../../src/pipeline.ts";
import { PipelinePool } from "../../src/serve/pool.ts";
import { parseShare, type Share } from "../../src/serve/share.ts";
import { fakeOpener } from "../support/fake-model.ts";

const gpuCount = 4;

/** Sessions on GPUs that hold so many copies of the weights each; `held` has how many they hold. */
function openerOn(copiesMax: number) {
  const fake = fakeOpener();
  const held = Array.from({ length: gpuCount }, () => 0);
  const dependencies: typeof fake = {
    ...fake,
    probeDevice: () => ({ ...fake.probeDevice(), gpuCount, cudaKernels: "sm_90a" }),
    async openSession(options) {
      const { gpu, rankCount } = options;
      const first = gpu?.gpuFirst ?? 0;
      const gpus = Array.from({ length: rankCount }, (_, rank) => first + rank);
      await Bun.sleep(0);
      // As the library says it from its plan, before it loads.
      const isFull = gpus.some((each) => held[each]! >= copiesMax);
      if (isFull) throw new BasedXLError("no-memory", "The model does not fit beside another one.");
      for (const each of gpus) held[each]! += 1;
      const session = await fake.openSession(options);
      return {
        ...session,
        async close() {
          for (const each of gpus) held[each]! -= 1;
          await session.close();
        },
      };
    },
  };
  return { held, dependencies };
}

async function poolOn(copiesMax: number) {
  const { held, dependencies } = openerOn(copiesMax);
  const devices = { device: "cuda", rankCount: gpuCount } as const;
  const prepared = await preparePipeline({ devices }, dependencies);
  const model = { id: "model", vae: null, refiner: null, prepared };
  const pool = new PipelinePool({ maxModels: 1, onLoad: () => {}, dependencies });
  const { signal } = new AbortController();
  const acquire = (share: Share, slot: number) => pool.acquire({ model, share, slot, signal });
  const use = async (share: Share) => {
    const slots = Array.from({ length: share.images }, (_, slot) => slot);
    const leases = await Promise.all(slots.map((slot) => acquire(share, slot)));
    const counts = [...held];
    for (const { release } of leases) release();
    return counts;
  };
  return { held, pool, use, acquire };
}

const [all, pairs, single] = parseShare("auto", gpuCount) as [Share, Share, Share];

test("where two copies do not fit, a change of the share unloads the other one's", async () => {
  const { held, pool, use } = await poolOn(1);
  for (const share of [all, single, pairs, all, single]) {
    expect(await use(share)).toEqual([1, 1, 1, 1]);
  }
  await pool.close();
  expect(held).toEqual([0, 0, 0, 0]);
});

test("where two fit, a change back loads nothing, and a third share takes a place", async () => {
  const { held, pool, use } = await poolOn(2);
  expect(await use(all)).toEqual([1, 1, 1, 1]);
  expect(await use(single)).toEqual([2, 2, 2, 2]);
  expect(await use(all)).toEqual([2, 2, 2, 2]);
  expect(Math.max(...(await use(pairs)))).toBe(2);
  await pool.close();
  expect(held).toEqual([0, 0, 0, 0]);
});

test("a lost session takes along what is idle on its GPUs, and nothing else", async () => {
  const { held, pool, use, acquire } = await poolOn(2);
  await use(all);
  await use(pairs);
  expect(held).toEqual([2, 2, 2, 2]);
  const second = await acquire(pairs, 1);
  await second.discard();
  expect(held).toEqual([1, 1, 0, 0]);
  const busy = await acquire(pairs, 0);
  await (await acquire(pairs, 1)).discard();
  expect(held).toEqual([1, 1, 0, 0]);
  expect(await pool.discardIdle(busy.pipeline)).toBe(false);
  busy.release();
  expect(await pool.discardIdle(busy.pipeline)).toBe(true);
  expect(held).toEqual([0, 0, 0, 0]);
  await pool.close();
});
