/**
 * The whole CUDA path on the emulated driver: text, UNet and VAE against recorded outputs of
 * PyTorch, and pictures of one and more ranks in every mode against the CPU backend.
 *
 * Bars are those of 16-bit arithmetic: f16 keeps 11 bits, and some hundred roundings in a row leave
 * a few 1e-3 of relative L2.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { syncModes } from "../../src/native/session.ts";
import { relativeL2 } from "../support/compare.ts";
import { draw, drawLatents, latentsOf, requestOf, withSession } from "../support/draw.ts";
import { emulated } from "../support/emulator.ts";
import { measureGoldenParts } from "../support/parity.ts";

// Emulated threads are slow, and the cores may be busy.
setDefaultTimeout(240_000);

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));

describe("parts in f16 against PyTorch in f32", () => {
  test("text encoders, UNet and VAE within 5e-3", async () => {
    const measures = [];
    for await (const measure of measureGoldenParts({ gpu: emulated() })) measures.push(measure);
    expect(measures.length).toBeGreaterThan(6);
    for (const { what, measured } of measures) {
      expect({ what, measured, isWithin: measured <= 5e-3 }).toMatchObject({ isWithin: true });
    }
  });
});

describe("12 steps against the CPU backend", () => {
  const work = {
    model,
    width: 64,
    height: 128,
    stepCount: 12,
    warmupSteps: 2,
    splitBatch: false,
  };
  const cuts = [
    ...syncModes.map((syncMode) => ({ syncMode, rankCount: 2 })),
    ...syncModes.map((syncMode) => ({ syncMode, rankCount: 4 })),
  ];

  test.each(cuts)("$syncMode, $rankCount ranks: graphs change no bit, within 1e-2", async (cut) => {
    const ours = await drawLatents({ ...work, ...cut, gpu: emulated() });
    const eager = await drawLatents({ ...work, ...cut, gpu: emulated({ graphs: false }) });
    expect(Buffer.from(ours.buffer).equals(Buffer.from(eager.buffer))).toBe(true);
    const onCpu = await drawLatents({ ...work, ...cut });
    expect(relativeL2(ours, onCpu)).toBeLessThanOrEqual(1e-2);
  });

  test("one rank, f16 and bf16", async () => {
    const onCpu = await drawLatents(work);
    const half = await drawLatents({ ...work, gpu: emulated() });
    expect(relativeL2(half, onCpu)).toBeLessThanOrEqual(1e-2);
    // Three bits fewer than f16.
    const brain = await drawLatents({ ...work, gpu: emulated({ dtype: "bf16" }) });
    expect(relativeL2(brain, onCpu)).toBeLessThanOrEqual(8e-2);
  });
});

test("another picture, prompt or size replays or captures anew, and agrees", async () => {
  const work = { model, width: 64, height: 64, stepCount: 4, gpu: emulated(), rankCount: 2 };
  const second = { ...work, prompt: "a blue square", seeds: [5n] };
  const other = { ...work, width: 96, height: 64 };
  await withSession(work, async (session) => {
    await session.picture(requestOf(work));
    for (const again of [second, other, second, work]) {
      const warm = latentsOf(await session.picture(requestOf(again)));
      const alone = latentsOf(await draw(again));
      expect(Buffer.from(warm.buffer).equals(Buffer.from(alone.buffer))).toBe(true);
    }
  });
});
