/**
 * The exchange between GPU ranks in every order of its threads (tests/support/exchange-model.ts):
 * no rank waits for ever, none reads what is not written yet or overwritten, and each part of the
 * protocol is needed: without it something goes wrong.
 */
import { describe, expect, test } from "bun:test";
import { explore, type ModelOptions, parts } from "../support/exchange-model.ts";

const small: ModelOptions = {
  ranks: 3,
  steps: 2,
  slots: 3,
  groupSlots: 2,
  slotEvents: 4,
  freshSteps: 1,
};

/** The deep slot is in the middle of a group, and is left out of every second step. */
const cached = { steps: 5, slots: 4, deep: [1, 3], fullSteps: [0, 2, 4] } as const;

test.each([
  { name: "fresh, then stale", freshSteps: 1 },
  { name: "fresh in every step", freshSteps: 2 },
  { name: "fresh statistics read in place, then stale", freshSteps: 1, readThere: [1] },
  { name: "fresh statistics read in place in every step", freshSteps: 2, readThere: [0, 2] },
])("three ranks, two steps, three slots: $name", ({ name: _, ...change }) => {
  const { problem, states } = explore({ ...small, ...change });
  expect(problem).toBeNull();
  expect(states).toBeGreaterThan(1000);
});

test.each([
  { name: "stale values of each step before", steps: 4 },
  // A late thread may wait for a later record: it then only waits longer.
  { name: "events used again at once", freshSteps: 2, slotEvents: 1 },
  { name: "changes of each step before", steps: 4, compresses: true },
  { name: "changes after fresh ones", steps: 4, freshSteps: 2, compresses: true },
  { name: "changes in fresh steps alone", steps: 3, freshSteps: 3, compresses: true },
  { name: "deep slots, each step full", steps: 3, deep: [1, 2] as const },
  { name: "deep slots of full steps alone", ...cached },
  { name: "deep slots that end with a group", ...cached, deep: [0, 2] as const },
  { name: "cached steps that are fresh", ...cached, freshSteps: 2 },
  { name: "deep slots, fresh statistics read in place", ...cached, readThere: [1, 2] },
  { name: "fresh deep slots", ...cached, freshDeep: true },
  { name: "fresh deep statistics read in place", ...cached, freshDeep: true, readThere: [1, 2] },
  { name: "changes of fresh deep slots", ...cached, freshDeep: true, compresses: true },
  { name: "changes of deep slots", ...cached, compresses: true },
])("two ranks: $name", ({ name: _, ...change }) => {
  const { problem } = explore({ ...small, ranks: 2, ...change });
  expect(problem).toBeNull();
});

describe("each part is needed", () => {
  test.each(parts.map((without) => ({ without })))("$without", ({ without }) => {
    const isDeep = without.includes("deep");
    for (const readThere of without === "barrier in endOpen" ? [[0]] : [[], [0, 1, 2]]) {
      const found = [false, true].flatMap((compresses) =>
        [1, 2, 3].map((freshSteps) =>
          explore({
            ...{ ...small, ranks: 2, steps: 3, ...(isDeep ? cached : {}) },
            ...{ freshSteps, readThere, compresses, without },
          }),
        ),
      );
      expect(found.map(({ problem }) => problem)).toContainEqual(expect.any(String));
    }
  });
});
