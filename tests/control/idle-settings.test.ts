/**
 * Settings that do nothing beside the others: each is warned about or refused, never passed over.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { idleOnDevice } from "../../src/pipeline/idle-settings.ts";
import { planRequest } from "../../src/pipeline/request.ts";
import { parseSampleOptions } from "../../src/settings/options.ts";

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));

function planOf(changes: object, rankCount: number) {
  const request = { prompt: "a house", width: 64, height: 256, stepCount: 4, ...changes };
  return planRequest(request, model, rankCount);
}

const unshared = "no ranks share the rows of an image";
test.each([
  [1, { compressExchange: "int8" }, `compressExchange is not used: ${unshared}.`],
  [2, { compressExchange: "int4" }, `compressExchange is not used: ${unshared}.`],
  [2, { compressExchange: "int8", splitBatch: false }, null],
  [4, { compressExchange: "int8" }, null],
  [2, { compressExchange: "int8", guidanceEnd: 0.5 }, null],
  [1, { balance: "auto" }, `balance is not used: ${unshared}.`],
  [2, { balance: "auto" }, null],
  [1, { warmupSteps: "auto" }, `warmupSteps is not used: ${unshared}.`],
  [4, { warmupSteps: "auto" }, null],
  [4, { warmupSteps: "auto", syncMode: "full_sync" }, "warmupSteps is not used: with syncMode"],
  [4, { freshDeep: false }, "freshDeep is not used: no steps reuse deep features"],
  [1, { freshDeep: false, deepCache: "2", stepCount: 9 }, "freshDeep is not used"],
  [4, { freshDeep: false, deepCache: "2", stepCount: 9 }, null],
  [1, { deepCacheBranch: 1 }, "deepCacheBranch is not used: it needs steps that reuse"],
  [1, { deepCacheBranch: 1, quality: "fast", stepCount: 25 }, null],
  [1, { quality: "fast" }, "quality fast leaves deep features as they are in 2 of only 4 steps"],
  [1, { deepCache: "2", stepCount: 8 }, "deepCache 2 leaves deep features as they are in 4 of"],
  [1, { deepCache: "2", stepCount: 9 }, null],
  [1, { deepCacheBranch: 1, deepCacheThreshold: 0.2 }, null],
] as const)("%i ranks, %j: %s", (ranks, changes, expected) => {
  const { warnings } = planOf(changes, ranks);
  expect(warnings).toEqual(expected === null ? [] : [expect.stringContaining(expected)]);
});

test("images that decide by themselves what they reuse are computed alone", () => {
  const images = { seeds: [1n, 2n, 3n], batchSize: 2 };
  expect(planOf(images, 1).batches.length).toBe(2);
  const plan = planOf({ ...images, deepCacheThreshold: 0.2 }, 1);
  expect(plan.batches.length).toBe(3);
  expect(plan.settings.batchSize).toBe(1);
  expect(plan.warnings).toEqual([expect.stringContaining("batchSize is not used: with")]);
  const one = { seeds: [1n], batchSize: 2, deepCacheThreshold: 0.2 };
  expect(planOf(one, 1).warnings).toEqual([]);
});

test.each(["auto", "1:2@2"])("rows dealt anew, %s, exclude outputs that are kept", (balance) => {
  expect(() => planOf({ balance, crossAttentionGate: 2 }, 2)).toThrow("does not go with");
});

test("shares count evaluations of the model, as measured ones do", () => {
  const heun = { scheduler: "heun", splitBatch: false };
  expect(planOf({ ...heun, balance: "1:2@6" }, 2).batches.length).toBe(1);
  expect(() => planOf({ ...heun, balance: "1:2@7" }, 2)).toThrow("there is no step 7 of 7");
});

test.each([
  ["cuda", { balance: "auto", syncMode: "full_sync" }, 1],
  ["cuda", { balance: "auto", syncMode: "sync_gn" }, 0],
  ["cuda", { balance: "1:2", syncMode: "full_sync" }, 0],
  ["cpu", { balance: "auto", syncMode: "full_sync" }, 0],
] as const)("ranks on %s that %j: %i warnings", (device, settings, count) => {
  const warnings = idleOnDevice(settings, device, (key) => key);
  expect(warnings).toEqual(Array(count).fill(expect.stringContaining("balance auto is not used")));
});

test("branches that are split are not dealt by speed", () => {
  const parse = (args: object) => parseSampleOptions({ _: ["a house"], ...args });
  expect(() => parse({ "split-batch": true, balance: "auto" })).toThrow("contradict each other");
  expect(parse({ "split-batch": false, balance: "auto" }).balance).toBe("auto");
  expect(parse({ "split-batch": true }).balance).toBe("off");
});

test("control characters in shares are shown as escapes", () => {
  expect(() => planOf({ balance: "1:\u001b[31m" }, 2)).toThrow("\\u001b[31m");
});
