/**
 * The UNet's linear layers in int8 on the emulated GPU, against int8 on the CPU: the integers are
 * the same (zig/verify/ops/eight_bit.zig), and what is around them is rounded to f16.
 */
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { goldenModel } from "../../src/bench/support/golden-model.ts";
import { openModelFolder } from "../../src/models/folder.ts";
import { nativeModelOf } from "../../src/models/native-model.ts";
import { smallestOptions } from "../../src/native/handle.ts";
import { planOf } from "../../src/native/plan.ts";
import type { ImageResult } from "../../src/pipeline/session.ts";
import { keysOf, randomAdapter, removeAdapters, unetFile } from "../support/adapter-file.ts";
import { relativeL2 } from "../support/compare.ts";
import { drawLatents, latentsOf, requestOf, withSession } from "../support/draw.ts";
import { emulated } from "../support/emulator.ts";
import { roundToInt8 } from "../support/int8-file.ts";
import { copyModel, removeCopies } from "../support/model-copy.ts";

setDefaultTimeout(240_000);
afterAll(removeCopies);
afterAll(removeAdapters);

const model = await openModelFolder(goldenModel);
const size = { width: 32, height: 64, guidanceScale: 1, stepCount: 3, warmupSteps: 3 };
const work = { model, ...size, dtype: "int8" } as const;
const onCpu = await drawLatents(work);

test("latents are the CPU's, by graphs and LoRAs, and these leave no trace", async () => {
  const keys = keysOf(unetFile, /(to_(q|k|v|out\.0)|ff\.net\.2)\.weight$/);
  const { adapter } = randomAdapter("int8", { [unetFile]: keys }, { seed: 1, size: 0.1 });
  const notes: string[] = [];
  const onWeightNote = (sentence: string) => void notes.push(sentence);
  const ours = { ...work, gpu: emulated(), onWeightNote };
  const results: ImageResult[] = [];
  await withSession(ours, async (session) => {
    for (const adapters of [[], [adapter], []]) {
      results.push(await session.image(requestOf({ ...ours, adapters })));
    }
  });
  const [plain, adapted, again] = results.map(latentsOf);
  expect(notes).toEqual([expect.stringMatching(/^UNet: linear layers in int8 \(/)]);
  expect(relativeL2(plain!, onCpu)).toBeLessThanOrEqual(5e-3);
  expect(again).toEqual(plain!);
  const theirs = await drawLatents({ ...work, adapters: [adapter] });
  expect(relativeL2(theirs, onCpu)).toBeGreaterThan(2e-2);
  expect(relativeL2(adapted!, theirs)).toBeLessThanOrEqual(1e-2);
});

test("a file's integers are used as they are, without graphs and on two ranks too", async () => {
  const folder = copyModel(unetFile, (tensors) => roundToInt8(tensors));
  const ofFile = await openModelFolder(folder);
  const rounded = await drawLatents({ ...work, gpu: emulated() });
  const plain = { ...work, model: ofFile, dtype: "f32" as const };
  expect(await drawLatents({ ...plain, gpu: emulated({ graphs: false }) })).toEqual(rounded);
  const two = await drawLatents({ ...plain, gpu: emulated(), rankCount: 2 });
  expect(relativeL2(two, onCpu)).toBeLessThanOrEqual(5e-3);
});

test("two ranks in a stale mode are the CPU's, by peer copies and by NCCL", async () => {
  const mode = { syncMode: "stale_gn", warmupSteps: 0, splitBatch: false } as const;
  const pair = { ...work, ...mode, rankCount: 2 };
  const theirs = await drawLatents(pair);
  // What is stale shows beside rounding.
  expect(relativeL2(theirs, onCpu)).toBeGreaterThan(2e-2);
  const by = (transport: "peer" | "nccl") =>
    drawLatents({ ...pair, gpu: emulated({ share: false, transport }) });
  const byPeers = await by("peer");
  expect(relativeL2(byPeers, theirs)).toBeLessThanOrEqual(5e-3);
  expect(await by("nccl")).toEqual(byPeers);
});

test("the plan has a byte for each weight in int8, and the rounding of rows", () => {
  const options = { ...smallestOptions(nativeModelOf(model), 8), gpu: emulated() };
  const wide = planOf(options);
  const int8 = planOf({ ...options, dtype: "int8" });
  expect(int8.weight_int8_bytes).toBeGreaterThan(200_000);
  expect(int8.weight_bytes).toBeLessThan(wide.weight_bytes - 0.9 * int8.weight_int8_bytes);
  const operations = int8.passes[0]!.ranks[0]!.operations.map(({ operation }) => operation);
  expect(operations.some(({ op }) => op === "quantize_rows")).toBe(true);
  expect(operations.some(({ op, int8: isInt8 }) => op === "linear_geglu" && isInt8)).toBe(true);
});
