/**
 * The guidance window: which evaluations of a sampler it leaves without the negative branch.
 */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { openModelFolder } from "../../src/models/folder.ts";
import { planRequest } from "../../src/pipeline/request.ts";
import type { Scheduler } from "../../src/settings/names.ts";
import { refusal } from "../support/refusal.ts";

const model = await openModelFolder(join(import.meta.dir, "../fixtures/golden/model"));

function planOf(changes: object, rankCount = 1) {
  const request = { prompt: "a house", width: 64, height: 256, stepCount: 4, ...changes };
  return planRequest(request, model, rankCount);
}

/** `+` for an evaluation with guidance. */
function guided(scheduler: Scheduler, changes: object): string {
  const { steps } = planOf({ scheduler, ...changes }).schedule;
  return steps.map(({ guidanceFactor }) => (guidanceFactor === 0 ? "-" : "+")).join("");
}

test.each([
  ["euler", {}, "++++"],
  ["euler", { guidanceStart: 0.25 }, "-+++"],
  ["euler", { guidanceEnd: 0.75 }, "+++-"],
  // As Python's int() of the product.
  ["euler", { guidanceStart: 0.49, guidanceEnd: 0.74 }, "-+--"],
  // Two evaluations in each step but the last.
  ["heun", { guidanceStart: 0.25, guidanceEnd: 0.75 }, "--++++-"],
  // Three, two in the last step but one, one in the last.
  ["heunpp2", { guidanceEnd: 0.75 }, "++++++++-"],
  ["heunpp2", { guidanceStart: 0.25, guidanceEnd: 0.5 }, "---+++---"],
  ["heunpp2", { stepCount: 3, guidanceStart: 0.4 }, "---+++"],
  // Evaluations are the steps where there are fewer.
  ["ddim", { compat: "a1111", guidanceEnd: 0.7 }, "++-"],
  // Two in the first step.
  ["pndm", { guidanceStart: 0.25 }, "--+++"],
] as const)("%s, %j: %s", (scheduler, changes, expected) => {
  expect(guided(scheduler, changes)).toBe(expected);
});

test("a window of pndm counts the steps before Runge-Kutta's evaluations", () => {
  const scheduler = { ...model.scheduler, className: "PNDMScheduler" };
  scheduler.solver = { ...scheduler.solver, skipPrkSteps: false };
  const request = { prompt: "a house", stepCount: 5, guidanceStart: 0.2, guidanceEnd: 0.8 };
  const { steps } = planRequest(request, { ...model, scheduler }, 1).schedule;
  const guided = steps.map(({ guidanceFactor }) => (guidanceFactor === 0 ? "-" : "+")).join("");
  expect(guided).toBe("----" + "++++" + "++++" + "+" + "-");
});

test("a window without a step is refused", async () => {
  const message = await refusal(
    async () => planOf({ guidanceStart: 0.3, guidanceEnd: 0.4 }),
    "bad-option",
  );
  expect(message).toBe(
    "guidanceStart 0.3 and guidanceEnd 0.4 leave none of 4 steps with guidance: guidanceScale 1 is \
without.",
  );
});

test("without guidance a window is not used, and said so", () => {
  const { warnings } = planOf({ guidanceScale: 1, guidanceEnd: 0.5 });
  expect(warnings).toEqual(["guidanceEnd is not used: it needs guidanceScale above 1, not 1."]);
});

test("the layout says who computes what outside the window", () => {
  const texts = [{}, { guidanceEnd: 0.5 }].map(
    (changes) => planOf(changes, 4).batches[0]?.layout.text,
  );
  expect(texts).toEqual([
    "4 ranks = 2 guidance branches × 2 patches (16 + 16 rows)",
    "4 ranks = 2 guidance branches × 2 patches (16 + 16 rows); 4 patches (8 + 8 + 8 + 8 rows) \
outside the guidance window",
  ]);
});
