/**
 * Images on the emulated driver beyond what `verify` compares (verify.test.ts): four ranks, other
 * prompts, noise, failures. Beside them, on another core, the emulator's own tests and every
 * operation against the CPU backend (zig/test_cuda.zig): one core alone would take twice as long.
 *
 * Bars are those of 16-bit arithmetic: f16 keeps 11 bits, and some hundred roundings in a row leave
 * a few 1e-3 of relative L2.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { emulatedCallCount, failEmulatedCall, setEmulatedPeers } from "../../src/native/testing.ts";
import type { Session } from "../../src/pipeline/session.ts";
import { maxAbs, relativeL2 } from "../support/compare.ts";
import {
  draw,
  drawLatents,
  latentsOf,
  openFor,
  requestOf,
  type Work,
  withSession,
} from "../support/draw.ts";
import { emulated } from "../support/emulator.ts";
import { drawBrownian, drawNoise } from "../support/noise.ts";
import { refusal } from "../support/refusal.ts";
import { seed, seedName } from "../support/seed.ts";
import { testBlocks, testsRun, zigBuild } from "../support/zig.ts";

// Emulated threads are slow, and the cores may be busy.
setDefaultTimeout(240_000);

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));
// Limits of shared memory differ from GPU to GPU: over time each has its turn.
const gpus = ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"];
const gpuInTurn = process.env.BASEDXL_EMULATOR_GPU || gpus[seed % gpus.length];
const operations = zigBuild("test-cuda", `-Demulated-gpu=${gpuInTurn}`, "--summary", "all");

describe("against the CPU backend", () => {
  const work = { model, width: 32, height: 64, warmupSteps: 1, splitBatch: false };
  const half = emulated();
  const eager = emulated({ graphs: false });

  describe("4 ranks", () => {
    // Patches with a neighbour on either side; after one synchronous step the asynchronous ones.
    const pair: Work = { ...work, rankCount: 4, height: 128, stepCount: 5, warmupSteps: 0 };
    const opened: Session[] = [];
    beforeAll(async () => {
      for (const gpu of [half, eager, undefined]) opened.push(await openFor({ ...pair, gpu }));
    });
    afterAll(() => Promise.all(opened.map((session) => session.close())));

    test.each(["full_sync", "corrected_async_gn"] as const)(
      "%s: graphs change no bit, within 1e-2",
      async (syncMode) => {
        const request = requestOf({ ...pair, syncMode });
        const result = [];
        const replayed = [];
        for (const session of opened) {
          const image = await session.image(request);
          result.push(latentsOf(image));
          replayed.push(image.ranks[0]?.graphsReplayed);
        }
        const [ours, plain, onCpu] = result as [Float32Array, Float32Array, Float32Array];
        // The same bits prove nothing where nothing was replayed.
        expect(replayed[0]).toBeGreaterThan(0);
        expect(replayed[1]).toBe(0);
        expect(Buffer.from(ours.buffer).equals(Buffer.from(plain.buffer))).toBe(true);
        expect(relativeL2(ours, onCpu)).toBeLessThanOrEqual(1e-2);
      },
    );
  });

  test("exchange in 8 bits: graphs change no bit", async () => {
    const changes: Work = { ...work, rankCount: 2, syncMode: "corrected_async_gn", stepCount: 7 };
    const request = requestOf({ ...changes, compressExchange: "int8" });
    const [ours, plain, onCpu] = await Promise.all(
      [half, eager, undefined].map(async (gpu) => {
        return await withSession({ ...changes, gpu }, (session) => session.image(request));
      }),
    );
    expect(ours!.ranks[0]!.graphsReplayed).toBeGreaterThan(0);
    expect(latentsOf(ours!)).toEqual(latentsOf(plain!));
    expect(relativeL2(latentsOf(ours!), latentsOf(onCpu!))).toBeLessThanOrEqual(1e-2);
    // Changes have the same bytes in f16; the first step sends whole numbers of half the bytes.
    const bytesOf = ({ ranks }: typeof ours & object) => ranks[0]!.keysValuesBytes;
    expect(bytesOf(ours!)).toBeLessThan(bytesOf(onCpu!));
  });
});

test("another image, prompt or size replays or captures anew, and agrees", async () => {
  const work = { model, width: 32, height: 64, stepCount: 3, gpu: emulated(), rankCount: 2 };
  const second = { ...work, prompt: "a blue square", seeds: [5n] };
  const other = { ...work, width: 96, height: 64 };
  const fresh = new Map<Work, Float32Array>();
  for (const alone of [work, second, other]) fresh.set(alone, latentsOf(await draw(alone)));
  await withSession(work, async (session) => {
    await session.image(requestOf(work));
    for (const again of [second, other, second, work]) {
      const warm = latentsOf(await session.image(requestOf(again)));
      expect(Buffer.from(warm.buffer).equals(Buffer.from(fresh.get(again)!.buffer))).toBe(true);
    }
  });
});

test.each([1, 2, 4])("guidance rescale of %d ranks as on the CPU", async (rankCount) => {
  const size = { model, width: 32, height: 64, stepCount: 2, seeds: [1n, 2n] };
  // So strong a guidance that what the rescale moves is far from what f16 does.
  const how = { scheduler: "euler_a", guidanceScale: 30, guidanceRescale: 0.7 } as const;
  const work: Work = { ...size, ...how };
  const ours = await drawLatents({ ...work, rankCount, gpu: emulated() });
  const onCpu = await drawLatents(work);
  expect(relativeL2(ours, onCpu)).toBeLessThanOrEqual(1e-2);
  const without = await drawLatents({ ...work, guidanceRescale: 0 });
  expect(relativeL2(onCpu, without)).toBeGreaterThan(5e-2);
});

test("a GPU samples --rng cuda's noise as the CPU does", async () => {
  const seeds = [3n, 0x123456789abcdefn];
  const work: Work = { model, width: 32, height: 64, seeds, rng: "cuda" };
  const onCpu = await drawNoise(work, 2);
  const ours = await drawNoise({ ...work, gpu: emulated() }, 2);
  for (const [i, latents] of ours.entries()) {
    // Logarithm, sine and cosine in f32 here, in f64 there: 2^-21 of numbers up to 6.
    expect(maxAbs(latents, onCpu[i]!)).toBeLessThanOrEqual(4e-6);
  }
});

test("a GPU samples a batch's noise and Brownian paths as the CPU does", async () => {
  const work: Work = { model, width: 32, height: 64, seeds: [3n, 3n], rng: "cuda" };
  const batch = { ...work, noiseBatch: 3, noisePlaces: [0, 2] };
  const [first] = await drawNoise({ ...batch, gpu: emulated() }, 1);
  const [onCpu] = await drawNoise(batch, 1);
  expect(maxAbs(first!, onCpu!)).toBeLessThanOrEqual(4e-6);
  // The host makes these, on several threads.
  const levels = [[14.6, 3] as const, [3, 0.5] as const];
  const path = await drawBrownian({ ...batch, levels, gpu: emulated() });
  expect(path).toEqual(await drawBrownian({ ...batch, levels }));
});

test("another prompt, seed or sampler captures no new graph", async () => {
  const work: Work = { model, width: 32, height: 32, stepCount: 3, gpu: emulated() };
  await withSession(work, async (session) => {
    const graphs = async (change: Partial<Work>) => {
      const { ranks } = await session.image(requestOf({ ...work, ...change }));
      return { captured: ranks[0]?.graphsCaptured, replayed: ranks[0]?.graphsReplayed };
    };
    await graphs({});
    await graphs({});
    // Both branches through two encoders and the pooling, three steps, the decoder.
    const all = { captured: 0, replayed: 2 * 3 + 3 + 1 };
    expect(await graphs({ prompt: "a blue square, far to the left", seeds: [7n] })).toEqual(all);
    expect(await graphs({ scheduler: "euler_a" })).toEqual(all);
    // Another size has the UNet's steps and the decoder captured, once.
    await graphs({ width: 64 });
    await graphs({ width: 64 });
    expect(await graphs({ width: 64 })).toEqual(all);
  });
});

describe("two ranks on GPUs of their own", () => {
  const work = { model, width: 32, height: 64, stepCount: 4, warmupSteps: 1, splitBatch: false };
  const pair = { ...work, rankCount: 2, syncMode: "corrected_async_gn" } as const;

  test("NCCL's messages and peer copies give the same bits", async () => {
    const modes = ["corrected_async_gn", "sync_gn", "full_sync"] as const;
    const images: Float32Array[][] = [];
    for (const transport of ["peer", "nccl"] as const) {
      const gpu = emulated({ share: false, transport });
      const ofModes: Float32Array[] = [];
      await withSession({ ...pair, gpu }, async (session) => {
        for (const syncMode of modes) {
          ofModes.push(latentsOf(await session.image(requestOf({ ...pair, syncMode }))));
        }
      });
      images.push(ofModes);
    }
    for (const [i, mode] of modes.entries()) {
      const [copied, sent] = images.map((ofModes) => Buffer.from(ofModes[i]!.buffer));
      expect({ mode, isEqual: sent!.equals(copied!) }).toEqual({ mode, isEqual: true });
    }
  });

  test("fresh statistics are read in place, or without peer access copied: same bits", async () => {
    const runs: { bits: Buffer; copies: number }[] = [];
    for (const hasAccess of [true, false]) {
      setEmulatedPeers(hasAccess);
      failEmulatedCall("none");
      const gpu = emulated({ share: false, transport: "peer" });
      const bits = Buffer.from((await drawLatents({ ...pair, gpu })).buffer);
      runs.push({ bits, copies: emulatedCallCount("copy_peer", 1) });
    }
    setEmulatedPeers(true);
    const [inPlace, copied] = runs;
    expect(inPlace?.bits.equals(copied?.bits as Buffer)).toBe(true);
    expect(inPlace?.copies).toBeLessThan(copied?.copies ?? 0);
  });

  test("who waits for messages of a rank that failed learns of it, and NCCL goes on", async () => {
    const gpu = emulated({ share: false, transport: "nccl" });
    const whole = Buffer.from((await drawLatents({ ...pair, gpu })).buffer);
    await withSession({ ...pair, gpu }, async (session) => {
      for (const [rank, step] of [
        [1, 2],
        [0, 4],
      ] as const) {
        // Nobody stalls: the limit is the product's half an hour.
        const fault = { kind: "fail", rank, step } as const;
        const failing = requestOf({ ...pair, testHooks: { fault } });
        const message = await refusal(() => session.image(failing), "rank-failed");
        expect(message).toBe(`Rank ${rank} failed at step ${step}. No image was written.`);
        const after = latentsOf(await session.image(requestOf(pair)));
        expect(Buffer.from(after.buffer).equals(whole)).toBe(true);
      }
    });
  });

  test("numbers that are not finite end the image, and their step is named", async () => {
    // A rank looks at a step when it has queued the next one.
    const gpu = emulated({ share: false });
    const request = requestOf({ ...pair, stepCount: 3 });
    await withSession({ ...pair, gpu }, async (session) => {
      for (const bad of [1, 2]) {
        const steps = [...request.steps];
        steps[bad] = { ...request.steps[bad]!, inputScale: Number.POSITIVE_INFINITY };
        const message = await refusal(() => session.image({ ...request, steps }), "not-finite");
        expect(message).toStartWith(`Step ${bad + 1} of 3 gave numbers that are not finite`);
      }
      expect(latentsOf(await session.image(request)).every(Number.isFinite)).toBe(true);
    });
  });

  test("NCCL is refused for ranks that share a GPU", async () => {
    const gpu = emulated({ transport: "nccl" });
    const pending = () => draw({ ...pair, rankCount: 3, height: 96, gpu });
    const message = await refusal(pending, "gpu-failed");
    expect(message).toContain("--transport nccl needs a GPU for each of the 3 ranks");
  });

  test("more ranks than GPUs are refused unless they may share", async () => {
    const gpu = emulated({ share: false });
    const pending = () => draw({ ...pair, rankCount: 3, height: 96, gpu });
    const message = await refusal(pending, "gpu-failed");
    expect(message).toContain("3 ranks need 3 GPUs, and the driver shows 2");
  });

  test("a rank that fails is named, and the next image is generated", async () => {
    const gpu = emulated();
    await withSession({ ...pair, gpu }, async (session) => {
      const fault = { kind: "fail", rank: 1, step: 2 } as const;
      const failing = requestOf({ ...pair, testHooks: { fault } });
      const message = await refusal(() => session.image(failing), "rank-failed");
      expect(message).toBe("Rank 1 failed at step 2. No image was written.");
      const after = latentsOf(await session.image(requestOf(pair)));
      const alone = await drawLatents({ ...pair, gpu });
      expect(Buffer.from(after.buffer).equals(Buffer.from(alone.buffer))).toBe(true);
    });
  });
});

test("sums in f16 are close, and are what was asked for", async () => {
  const work = { model, width: 32, height: 64, stepCount: 2 };
  const onCpu = await drawLatents(work);
  const exact = await drawLatents({ ...work, gpu: emulated() });
  const rough = await drawLatents({ ...work, gpu: emulated({ fp16Accumulate: true }) });
  expect(Buffer.from(rough.buffer).equals(Buffer.from(exact.buffer))).toBe(false);
  // Chunks of 64 products lose two to three bits of f16's eleven.
  expect(relativeL2(rough, onCpu)).toBeLessThanOrEqual(2e-2);
});

test(`emulator and operations pass their tests on ${gpuInTurn} (${seedName})`, async () => {
  const { exitCode, stderr } = await operations;
  expect(exitCode, stderr).toBe(0);
  expect(testsRun(stderr), stderr).toBeGreaterThanOrEqual(testBlocks("test-cuda"));
}, 600_000);
