/**
 * Weights in 8 bits on the emulated GPU, of an architecture that keeps them and of one that does
 * not, against the CPU.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { openModelFolder } from "../../src/models/folder.ts";
import { nativeModelOf } from "../../src/models/native-model.ts";
import { smallestOptions } from "../../src/native/handle.ts";
import { planOf } from "../../src/native/plan.ts";
import { setEmulatedCapability } from "../../src/native/testing.ts";
import type { ImageResult } from "../../src/pipeline/session.ts";
import {
  keysOf,
  unetFile as loraFile,
  randomAdapter,
  removeAdapters,
  scaled,
} from "../support/adapter-file.ts";
import { relativeL2 } from "../support/compare.ts";
import { drawLatents, latentsOf, requestOf, withSession } from "../support/draw.ts";
import { emulated } from "../support/emulator.ts";
import { copyVariant } from "../support/fp8.ts";
import { removeCopies } from "../support/model-copy.ts";

setDefaultTimeout(240_000);
afterAll(removeCopies);
afterAll(removeAdapters);

const hopper = 90;
/** Keeps them, and multiplies by the kernels of the next: Hopper has some of its own. */
const ada = 89;
const ampere = 80;
afterAll(() => setEmulatedCapability(0));

const widenedOnAmpere =
  /^UNet: 8-bit weights widened to f16 \(.*\); GPUs of compute capability 8\.9/;
const keptOnAda = /^UNet: weights in 8 bits/;

describe.each(["e4m3.plain", "e5m2.tensor"])("%s", async (variant) => {
  const model = await openModelFolder(copyVariant(variant).folder);
  // Keys and values are one product, and graphs are captured and replayed.
  const size = { width: 32, height: 64, guidanceScale: 1, stepCount: 3 };
  const work = { model, ...size, warmupSteps: 1, rankCount: 2 };
  const onCpu = await drawLatents(work);

  test("kept and widened: the same bits, within 5e-3 of the CPU", async () => {
    const latents: Float32Array[] = [];
    for (const [capability, note] of [
      [ada, keptOnAda],
      [ampere, widenedOnAmpere],
    ] as const) {
      setEmulatedCapability(capability);
      const notes: string[] = [];
      const onWeightNote = (sentence: string) => void notes.push(sentence);
      const ours = { ...work, gpu: emulated(), onWeightNote };
      const request = requestOf(ours);
      await withSession(ours, async (session) => {
        latents.push(latentsOf(await session.image(request)));
      });
      expect(notes).toContainEqual(expect.stringMatching(note));
    }
    const [kept, widened] = latents as [Float32Array, Float32Array];
    expect(Buffer.from(kept.buffer).equals(Buffer.from(widened.buffer))).toBe(true);
    expect(relativeL2(kept, onCpu)).toBeLessThanOrEqual(5e-3);
  });

  test.skipIf(variant !== "e4m3.plain")("f16 sums as well", async () => {
    setEmulatedCapability(hopper);
    // Sums by a kernel of ours, a fibre for each thread: one step.
    const one = { ...work, rankCount: 1, stepCount: 1 };
    const ours = await drawLatents({ ...one, gpu: emulated({ fp16Accumulate: true }) });
    expect(relativeL2(ours, await drawLatents(one))).toBeLessThanOrEqual(1e-2);
  });

  test.skipIf(variant !== "e5m2.tensor")(
    "LoRAs are merged over them without a graph captured again, and leave no trace",
    async () => {
      setEmulatedCapability(hopper);
      const keys = keysOf(loraFile, /(to_(q|k|v|out\.0)|conv1|ff\.net\.2)\.weight$/);
      const { adapter } = randomAdapter("fp8", { [loraFile]: keys }, { seed: 1, size: 0.02 });
      const ours = { ...work, height: 32, rankCount: 1, gpu: emulated() };
      const sets = [[], [], [], [adapter], [scaled(adapter, -1)], []];
      const results: ImageResult[] = [];
      await withSession(ours, async (session) => {
        for (const adapters of sets) {
          results.push(await session.image(requestOf({ ...ours, adapters })));
        }
      });
      const captured = results.map(({ ranks }) => ranks[0]!.graphsCaptured);
      expect(captured.slice(3)).toEqual([0, 0, 0]);
      expect(latentsOf(results[5]!)).toEqual(latentsOf(results[2]!));
      for (const i of [3, 4]) {
        const theirs = await drawLatents({ ...ours, gpu: null, adapters: sets[i]! });
        expect(relativeL2(latentsOf(results[i]!), theirs)).toBeLessThanOrEqual(1e-2);
        expect(relativeL2(theirs, latentsOf(results[2]!))).toBeGreaterThan(2e-2);
      }
    },
  );

  test("the plan has their bytes", () => {
    const options = { ...smallestOptions(nativeModelOf(model), 8), branchCount: 2 };
    const onGpu = planOf({ ...options, gpu: emulated() });
    expect(onGpu.weight_f8_bytes).toBeGreaterThan(3_000_000);
    expect(onGpu.weight_bytes).toBeGreaterThan(onGpu.weight_f8_bytes);
    const { weight_bytes, weight_f8_bytes } = planOf({ ...options, gpu: null });
    expect(weight_f8_bytes).toBeGreaterThanOrEqual(onGpu.weight_f8_bytes);
    expect(weight_bytes).toBeGreaterThanOrEqual(weight_f8_bytes);
  });
});
